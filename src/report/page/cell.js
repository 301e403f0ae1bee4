// A cell: its head, its lists, one entry with both sides. Its data are read when it is opened.

const opened = new Map();
let shown = null; // { place, cell, data, tab, rows, chosen }

function dataOf(place) {
  if (!opened.has(place)) {
    const element = $(`cell-${place}`);
    if (!element) return null; // The page is still being read.
    const data = JSON.parse(element.textContent);
    for (const event of data.events) event.lane = data.lanes[event.w];
    opened.set(place, data);
  }
  return opened.get(place);
}

function openCell(place, { tab, event }) {
  const data = dataOf(place);
  if (!data) return;
  const cell = index.cells[place];
  const fresh = !shown || shown.place !== place;
  if (fresh) {
    // What is cut short before its scenario is only told by what lies outside.
    $("outside").checked = !data.events.some((e) => !e.p);
  }
  shown = { place, cell, data, tab: TABS[tab] ? tab : "story", rows: [], chosen: null };
  $("overview").hidden = true;
  $("cell").hidden = false;
  drawHead(cell, data);
  drawTabs();
  fill();
  const wanted = event === null ? -1 : data.events.findIndex((e) => String(e.s) === event);
  if (wanted >= 0 && !shown.rows.includes(data.events[wanted])) {
    if (data.events[wanted].p) $("outside").checked = true;
    if (!TABS[shown.tab][1](data.events[wanted])) shown.tab = "all";
    drawTabs();
    fill();
  }
  drawTimeline();
  choose(wanted >= 0 ? data.events[wanted] : null, true);
  if (fresh) {
    window.scrollTo(0, 0);
    $("cell-name").focus({ preventScroll: true });
  }
}

function drawHead(cell, data) {
  const [icon, word] = STATES[cell.state];
  document.title = `${cell.name}: ${word}`;
  $("cell-name").replaceChildren(make("span", { class: `badge ${cell.state}` }, `${icon} ${word}`), cell.name);
  const faults = (cell.faults || []).map((f) =>
    `${f.assumption}: ${f.rule} on ${f.target}, ${f.fired ? `fired ${f.fired}x` : "never fired"} of ${f.matched} matches`);
  drawRuns(cell);
  facts($("cell-facts"), [
    ["reason", cell.reason], ["whose", cell.whose], ["wanted", cell.expectation], ["fault", faults.join("\n")],
    ["took", cell.duration_ms === undefined ? "" : `${cell.duration_ms} ms in the scenario, ${cell.cell_ms} ms in all`],
    ["to look at", (cell.findings || []).join("\n")],
    ["digest", cell.digest],
    ["not shown", data.cut ? `${data.cut} earlier entries: faultbox inspect shows them` : ""],
  ]);
  $("again").textContent = cell.again;
}

/** Links to all runs of a cell, where it has several. */
function drawRuns(cell) {
  const runs = cell.run === null ? [] : index.cells.filter((other) => other.of === cell.of && other.run !== null);
  $("runs").hidden = !runs.length;
  $("runs").replaceChildren(...runs.map((other) => {
    const [icon, word] = STATES[other.state];
    return make("a", {
      href: link({ cell: other.name }), class: other.state, "aria-current": other === cell ? "true" : null,
      "aria-label": `run ${other.run}: ${word}`,
    }, `${icon} ${other.run}`);
  }));
}

function drawTabs() {
  const tabs = $("tabs");
  const had = tabs.contains(document.activeElement);
  tabs.replaceChildren();
  for (const [name, [title, holds]] of Object.entries(TABS)) {
    const selected = name === shown.tab;
    const count = name === "spec" ? shown.data.places.length : within(holds).length;
    const tab = make("button", {
      type: "button", role: "tab", id: `tab-${name}`, "aria-selected": selected, tabindex: selected ? 0 : -1,
      "aria-controls": name === "spec" ? "spec" : "list",
      on: { click: () => { location.hash = link({ cell: shown.cell.name, tab: name }); } },
    }, `${title} ${count}`);
    tabs.append(tab);
    if (had && selected) tab.focus();
  }
}

function moveInTabs(event) {
  const names = Object.keys(TABS);
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || !shown) return;
  event.preventDefault();
  const next = names[(names.indexOf(shown.tab) + step + names.length) % names.length];
  location.hash = link({ cell: shown.cell.name, tab: next });
}

/** The entries of a tab in the scenario, or all of them where that is wanted. */
function within(holds) {
  const outside = $("outside").checked;
  return shown.data.events.filter((e) => (outside || !e.p || e.y) && holds(e));
}

function fill() {
  const words = $("search").value.trim().toLowerCase();
  const [, holds] = TABS[shown.tab];
  shown.rows = within(holds).filter((e) => !words || e.x.toLowerCase().includes(words));
  const spec = shown.tab === "spec";
  $("spec").hidden = !spec;
  $("list").hidden = spec;
  $("list").setAttribute("aria-label", `${TABS[shown.tab][0]}, ${shown.rows.length} entries`);
  if (spec) drawSpec(false);
  setDepths(shown.rows);
  $("rows").replaceChildren();
  $("rows").style.height = `${shown.rows.length * ROW}px`;
  $("list").scrollTop = 0;
  drawRows();
}

/** How deep a line stands: within a step, and within what the step asked. */
function setDepths(rows) {
  let inStep = false;
  let until = -Infinity;
  for (const e of rows) {
    e.depth = 0;
    if (e.k === "step") inStep = true;
    else if (e.k === "answer") inStep = false;
    else if (inStep) {
      e.depth = e.t < until && e.k !== "fault" ? 2 : 1;
      if (e.k === "exchange" && e.f === "test") {
        e.depth = 1;
        until = e.t + e.d;
      }
    }
  }
}

function row(e, at) {
  const classes = ["row", e.b && "bad", !e.y && "aside", e.depth && `in${e.depth}`].filter(Boolean).join(" ");
  const element = make("div", {
    class: classes, role: "option", id: `row-${at}`, "aria-selected": e === shown.chosen,
    "aria-setsize": shown.rows.length, "aria-posinset": at + 1,
    on: { click: () => go(e) },
  }, make("span", { class: "t" }, ms(e.t)), make("span", { class: "k" }, e.k), make("span", { class: "x" }, e.x));
  element.style.top = `${at * ROW}px`;
  return element;
}

/** Draws the rows that are in sight, and a few around them. */
function drawRows() {
  if (!shown || $("list").hidden) return;
  const list = $("list");
  const from = Math.max(0, Math.floor(list.scrollTop / ROW) - 10);
  const to = Math.min(shown.rows.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 10);
  const rows = [];
  for (let at = from; at < to; at++) rows.push(row(shown.rows[at], at));
  $("rows").replaceChildren(...rows);
  const at = shown.rows.indexOf(shown.chosen);
  if (at >= 0) list.setAttribute("aria-activedescendant", `row-${at}`);
  else list.removeAttribute("aria-activedescendant");
}

/** Shows an entry by way of the address, without an entry of its own in the history. */
function go(e) {
  history.replaceState(null, "", link({ cell: shown.cell.name, tab: shown.tab, event: e.s }));
  choose(e, false);
}

function choose(e, centred) {
  shown.chosen = e;
  const at = shown.rows.indexOf(e);
  const list = $("list");
  if (at >= 0) {
    const above = at * ROW < list.scrollTop;
    const below = (at + 1) * ROW > list.scrollTop + list.clientHeight;
    if (centred) list.scrollTop = at * ROW - list.clientHeight / 2;
    else if (above) list.scrollTop = at * ROW;
    else if (below) list.scrollTop = (at + 1) * ROW - list.clientHeight;
  }
  drawRows();
  drawDetails(e);
  markChosen();
}

function moveInList(event) {
  if (!shown) return;
  const page = Math.max(1, Math.floor($("list").clientHeight / ROW) - 1);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (event.key === "Enter") {
    $("details").focus();
    event.preventDefault();
  } else if (event.key in steps && shown.rows.length) {
    const at = shown.rows.indexOf(shown.chosen);
    const next = at < 0 ? (event.key === "End" ? shown.rows.length - 1 : 0) : at + steps[event.key];
    go(shown.rows[Math.min(shown.rows.length - 1, Math.max(0, next))]);
    event.preventDefault();
  }
}

function drawDetails(e) {
  const details = $("details");
  details.replaceChildren();
  if (!e) {
    details.append(make("p", { class: "hint" },
      "Choose a line (arrows, or a click) to see its request and response. Enter goes here, Escape back."));
    return;
  }
  const list = make("dl");
  facts(list, [
    ["when", `${ms(e.t)}${e.p ? ` (${e.p} of the cell)` : ""}`], ["took", e.d === undefined ? "" : ms(e.d)],
    ["who", e.f ? `${e.f} asked ${e.lane}` : e.lane], ["outcome", e.o], ["rule", e.u],
    ["counts as", e.c], ["spec", e.a], ["entry", e.s],
  ]);
  details.append(e.k === "log" ? "" : make("h3", {}, e.x), list);
  const pair = sides(e);
  if (pair.length) {
    details.append(make("div", { class: "pair" }, ...pair.map(([title, text]) =>
      make("section", { "aria-label": title }, make("h4", {}, title), make("pre", { tabindex: 0 }, text)))));
  }
}

/** Request and response; a step's are in two entries. */
function sides(e) {
  const { events, texts } = shown.data;
  const other = (kind) => events.find((o) => o.k === kind && o.n === e.n);
  let asked = e;
  let answered = e;
  if (e.k === "step") answered = other("answer") || {};
  if (e.k === "answer") asked = other("step") || {};
  const pair = [];
  if (asked.q !== undefined) pair.push([e.n === undefined ? "Request" : "Step", texts[asked.q]]);
  if (answered.r !== undefined) pair.push([e.n === undefined ? "Response" : "Answer", texts[answered.r]]);
  if (e.k === "log") pair.push(["Line", laidOut(e.x)]);
  return pair;
}

/** A line that holds a JSON document, with that set in. */
function laidOut(line) {
  const at = line.indexOf("{");
  try {
    return at < 0 ? line : line.slice(0, at) + JSON.stringify(JSON.parse(line.slice(at)), null, 2);
  } catch {
    return line;
  }
}
