// Search: dims the grid's other cells, finds lines, narrows a list.

function search() {
  if (shown) {
    fill();
    return;
  }
  const words = $("search").value.trim().toLowerCase();
  const matches = (cell) => [cell.name, cell.scenario, cell.fault, cell.reason, cell.whose, STATES[cell.state][1]]
    .some((text) => text && text.toLowerCase().includes(words));
  document.querySelectorAll("#grids button").forEach((button) => {
    const some = button.dataset.places.split(" ").some((place) => matches(index.cells[place]));
    button.classList.toggle("dim", Boolean(words) && !some);
  });
  const found = $("found");
  found.replaceChildren();
  if (words.length < 2) return;
  const lines = [];
  let more = 0;
  index.cells.forEach((cell, place) => {
    for (const e of (dataOf(place) || { events: [] }).events) {
      if (!e.x.toLowerCase().includes(words)) continue;
      if (lines.length < MOST_FOUND) {
        const href = link({ cell: cell.name, tab: e.y ? "story" : "all", event: e.s });
        lines.push(make("li", {}, make("a", { href }, `${cell.name}: ${e.x}`)));
      } else more += 1;
    }
  });
  found.append(make("h2", {}, `${lines.length + more} lines found`), make("ul", { class: "finds" }, ...lines));
  if (more) found.append(make("p", { class: "hint" }, `${more} more are not listed.`));
}
