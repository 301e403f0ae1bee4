// The lines of the spec that made a cell.

function drawSpec(whole) {
  const pane = $("spec");
  pane.replaceChildren();
  const made = new Map();
  for (const place of shown.data.places) {
    const at = place.lastIndexOf(":");
    const path = place.slice(0, at);
    if (!made.has(path)) made.set(path, new Set());
    made.get(path).add(Number(place.slice(at + 1)));
  }
  for (const { path, text } of index.sources) {
    const lines = made.get(path);
    if (!lines) continue;
    const source = make("ol", { class: "source" });
    let last = 0;
    text.split("\n").forEach((line, i) => {
      const number = i + 1;
      const near = whole || [...lines].some((m) => number >= m - 2 && number <= m + 6);
      if (!near) return;
      if (number !== last + 1) source.append(make("li", {}, make("span", { class: "gap" }, "\u22ee")));
      last = number;
      source.append(make("li", { class: lines.has(number) ? "made" : "" },
        make("span", { class: "number" }, String(number)),
        make("span", { class: "text" }, line)));
    });
    pane.append(make("h3", {}, path), source);
  }
  if (!pane.childElementCount) pane.append(make("p", { class: "hint" }, "The bundle does not say which lines."));
  else if (!whole) {
    pane.append(make("button", { type: "button", on: { click: () => drawSpec(true) } }, "Show the whole file"));
  }
}
