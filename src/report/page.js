// The page of `faultbox report`: the grid, one cell at a time, search, keyboard.
//
// Promises: text from the bundle only ever becomes text (textContent, or pixels of the canvas), never markup,
// a style or an address; the address bar alone says what is shown, so that every view can be linked to; of
// a list only the rows that are in sight exist. Does not do: anything over a network.
//
// In reading order: small helpers, the grid, a cell (list, timeline, details, spec), search, the address.
"use strict";
(() => {
  const STATES = {
    passed: ["\u2713", "passed"],
    failed: ["\u2717", "failed"],
    unreached: ["\u25b3", "unreached"],
    inconclusive: ["?", "inconclusive"],
    error: ["!", "error"],
    incomplete: ["\u2026", "no verdict"],
  };
  // What the tabs of a cell hold.
  const TABS = {
    story: ["Story", (e) => e.y],
    exchanges: ["Exchanges", (e) => e.k === "exchange"],
    syscalls: ["Syscalls", (e) => e.k === "syscall"],
    logs: ["Logs", (e) => e.k === "log"],
    all: ["Everything", () => true],
    spec: ["Spec", () => false],
  };
  const ROW = 26; // As --row in the style.
  const MOST_FOUND = 200;
  const MOST_PRINTED = 2000;

  const $ = (id) => document.getElementById(id);
  const index = JSON.parse($("index").textContent);

  /** An element with classes, attributes and children; text stays text. */
  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "class") element.className = value;
      else if (name === "on") for (const [event, does] of Object.entries(value)) element.addEventListener(event, does);
      else if (value !== undefined && value !== null) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  function ms(micros) {
    const value = micros / 1000;
    return Math.abs(value) < 10000 ? `${value.toFixed(2)} ms` : `${(value / 1000).toFixed(3)} s`;
  }

  function facts(list, pairs) {
    list.replaceChildren();
    for (const [name, value] of pairs) {
      if (value === undefined || value === null || value === "") continue;
      list.append(make("dt", {}, name), make("dd", {}, String(value)));
    }
  }

  // ---- What is in the address: `#cell=NAME&tab=TAB&event=NUMBER`.

  function address() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    return { cell: wanted.get("cell"), tab: wanted.get("tab"), event: wanted.get("event") };
  }

  function link({ cell, tab, event }) {
    const wanted = new URLSearchParams({ cell });
    if (tab && tab !== "story") wanted.set("tab", tab);
    if (event !== undefined && event !== null) wanted.set("event", event);
    return `#${wanted}`;
  }

  // ---- The grid.

  function cellButton(cell, place) {
    const [icon, word] = STATES[cell.state];
    const took = cell.duration_ms === undefined ? "" : `${cell.duration_ms} ms`;
    const under = cell.fault ? `under ${cell.fault}` : "without a fault";
    const label = `${cell.scenario || cell.name} ${under}: ${word}${cell.reason ? `, ${cell.reason}` : ""}`;
    return make("button", {
      type: "button", class: cell.state, tabindex: -1, "data-place": place, "aria-label": label, title: cell.reason,
      on: { click: () => { location.hash = link({ cell: cell.name }); } },
    }, `${icon} ${word}`, make("small", {}, took));
  }

  function grid(caption, columns, rows) {
    const head = make("tr", {}, make("td"), ...columns.map((name) => make("th", { scope: "col" }, name)));
    const table = make("table", { role: "grid", "aria-label": caption },
      make("caption", {}, caption),
      make("thead", {}, columns.some((name) => name) ? head : null));
    const body = make("tbody");
    for (const [name, cells] of rows) {
      const row = make("tr", {}, make("th", { scope: "row" }, name));
      for (const column of columns) {
        const place = cells.get(column);
        const held = place === undefined
          ? make("span", { class: "none", "aria-label": "not in the plan" }, "\u2013")
          : cellButton(index.cells[place], place);
        row.append(make("td", { role: "gridcell" }, held));
      }
      body.append(row);
    }
    table.append(body);
    return make("div", { class: "scroll" }, table);
  }

  function drawGrids() {
    const columns = [];
    const matrix = new Map();
    const plain = new Map();
    index.cells.forEach((cell, place) => {
      if (cell.fault === null || cell.fault === undefined) {
        plain.set(cell.name, new Map([["", place]]));
        return;
      }
      if (!columns.includes(cell.fault)) columns.push(cell.fault);
      if (!matrix.has(cell.scenario)) matrix.set(cell.scenario, new Map());
      matrix.get(cell.scenario).set(cell.fault, place);
    });
    if (matrix.size) $("grids").append(grid("Scenarios under each fault", columns, matrix));
    if (plain.size) $("grids").append(grid("Tests", [""], plain));
    const first = document.querySelector("td button.failed") || document.querySelector("td button");
    if (first) first.tabIndex = 0;
  }

  /** Arrows move between the cells of a grid, and from one grid to the next. */
  function moveInGrid(event) {
    const button = event.target.closest("td button");
    if (!button) return;
    const rows = [...document.querySelectorAll("#grids tbody tr")]
      .map((row) => [...row.querySelectorAll("td")].map((cell) => cell.querySelector("button")));
    const y = rows.findIndex((row) => row.includes(button));
    const x = rows[y].indexOf(button);
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    let next = null;
    if (event.key === "Home") next = rows[y].find(Boolean);
    else if (event.key === "End") next = rows[y].filter(Boolean).pop();
    else if (steps[event.key]) {
      const [dx, dy] = steps[event.key];
      for (let i = 1; !next && rows[y + dy * i] && i < 10000; i++) {
        const row = rows[y + dy * i];
        if (dx && (x + i * dx < 0 || x + i * dx >= row.length)) break;
        next = row[Math.min(x + dx * i, row.length - 1)];
      }
    } else return;
    event.preventDefault();
    if (next) focusCell(next);
  }

  function focusCell(button) {
    document.querySelectorAll('td button[tabindex="0"]').forEach((other) => { other.tabIndex = -1; });
    button.tabIndex = 0;
    button.focus();
  }

  // ---- A cell: its data are read when it is opened.

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
    facts($("cell-facts"), [
      ["reason", cell.reason], ["whose", cell.whose], ["wanted", cell.expectation], ["fault", faults.join("\n")],
      ["took", cell.duration_ms === undefined ? "" : `${cell.duration_ms} ms in the scenario, ${cell.cell_ms} ms in all`],
      ["digest", cell.digest],
      ["not shown", data.cut ? `${data.cut} earlier entries: faultbox inspect shows them` : ""],
    ]);
    $("again").textContent = cell.again;
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

  // ---- One entry.

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

  // ---- The timeline.

  /** Where each moment lies, from 0 to 1. Unless to scale, long gaps are shortened: by their logarithm. */
  function scale(events) {
    const times = [...new Set(events.flatMap((e) => (e.d ? [e.t, e.t + e.d] : [e.t])))].sort((a, b) => a - b);
    if (times.length < 2) return { times, of: () => 0 };
    const places = [0];
    for (let i = 1; i < times.length; i++) {
      const gap = times[i] - times[i - 1];
      places.push(places[i - 1] + ($("to-scale").checked ? gap : Math.log1p(gap)));
    }
    const whole = places[places.length - 1] || 1;
    const known = new Map(times.map((time, i) => [time, places[i] / whole]));
    return { times, of: (time) => known.get(time) ?? 0 };
  }

  const [LANE, LEFT, TOP, RIGHT] = [20, 130, 16, 10];
  let hits = []; // What is drawn where, for the pointer.
  let base = null; // The timeline without what is chosen.

  function drawTimeline() {
    if (!shown) return;
    const events = within((e) => !e.c);
    const used = new Set(events.map((e) => e.w));
    const rank = ({ name }) => ({ faults: 0, test: 1, faultbox: 3 })[name] ?? 2;
    const lanes = shown.data.lanes.map((name, lane) => ({ name, lane }))
      .filter(({ lane }) => used.has(lane)).sort((a, b) => rank(a) - rank(b));
    const canvas = $("lanes");
    const width = Math.max(320, canvas.clientWidth || 1000);
    const height = TOP + lanes.length * LANE + 4;
    const dense = window.devicePixelRatio || 1;
    base = make("canvas");
    for (const each of [canvas, base]) [each.width, each.height] = [width * dense, height * dense];
    canvas.style.height = `${height}px`;
    const paint = base.getContext("2d");
    paint.scale(dense, dense);
    const { times, of } = scale(events);
    const x = (time) => LEFT + of(time) * (width - LEFT - RIGHT);
    drawLanes(paint, lanes, width);
    drawWindow(paint, events.filter((e) => e.k === "fault"), x, width, height);
    const order = new Map(lanes.map(({ lane }, y) => [lane, TOP + y * LANE]));
    hits = events.map((e) => {
      const from = x(e.t);
      return { e, from, to: e.d ? Math.max(from + 2, x(e.t + e.d)) : from + 2, y: order.get(e.w) };
    });
    for (const hit of hits) {
      const { e } = hit;
      bar(paint, hit, e.b ? "red-ink" : e.k === "exchange" ? "green-ink" : "grey-ink", e.b ? 1 : 0.55);
    }
    ticks(paint, times, x, width);
    const says = `${lanes.length} lanes, ${events.length} entries`;
    $("timeline-says").textContent =
      `One lane for each service: ${says}${$("to-scale").checked ? "" : "; long gaps are shortened"}`;
    canvas.setAttribute("aria-label", `Timeline: ${says}. The tabs below hold the same as lists.`);
    markChosen();
  }

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
  }

  function bar(paint, { e, from, to, y }, name, strength) {
    paint.fillStyle = colours.get(name) || colours.set(name, colour(name)).get(name);
    paint.globalAlpha = strength;
    if (e.d) paint.fillRect(from, y + 5, to - from, 10);
    else paint.fillRect(from, y + 3, to - from, 14);
    paint.globalAlpha = 1;
  }

  const colours = new Map(); // Of the theme that is set.

  function drawLanes(paint, lanes, width) {
    paint.font = "12px ui-monospace, monospace";
    paint.textBaseline = "middle";
    lanes.forEach(({ name }, at) => {
      const y = TOP + at * LANE;
      paint.fillStyle = colour("line");
      paint.fillRect(LEFT, y + LANE - 1, width - LEFT - RIGHT, 1);
      paint.fillStyle = colour("soft");
      paint.fillText(name.length > 17 ? `${name.slice(0, 16)}\u2026` : name, 4, y + LANE / 2);
    });
  }

  /** Shades the time in which the fault was active. */
  function drawWindow(paint, faults, x, width, height) {
    if (!faults.length) return;
    const [from, to] = [x(faults[0].t), faults.length > 1 ? x(faults[faults.length - 1].t) : width - RIGHT];
    paint.globalCompositeOperation = "destination-over";
    paint.fillStyle = colour("yellow");
    paint.fillRect(from, TOP, Math.max(1, to - from), height);
    paint.globalCompositeOperation = "source-over";
  }

  /** The timeline with what is chosen: what else there is need not be drawn again. */
  function markChosen() {
    if (!base) return;
    const paint = $("lanes").getContext("2d");
    paint.setTransform(1, 0, 0, 1, 0, 0);
    paint.clearRect(0, 0, base.width, base.height);
    paint.drawImage(base, 0, 0);
    const dense = window.devicePixelRatio || 1;
    paint.scale(dense, dense);
    const chosen = hits.find((hit) => hit.e === shown.chosen);
    if (chosen) bar(paint, chosen, "focus", 1);
  }

  /** Names moments along the top, as many as have room. */
  function ticks(paint, times, x, width) {
    paint.fillStyle = colour("soft");
    let free = -Infinity;
    for (const time of times) {
      const at = x(time);
      if (at < free) continue;
      const wide = paint.measureText(ms(time)).width;
      if (at + wide > width) break;
      paint.fillText(ms(time), at, 8);
      free = at + wide + 24;
    }
  }

  function pick(event) {
    const box = $("lanes").getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const under = hits.filter((hit) => x >= hit.from - 2 && x <= hit.to + 2 && y >= hit.y && y < hit.y + LANE);
    // The shortest is the one on top of what it is part of.
    under.sort((a, b) => a.to - a.from - (b.to - b.from));
    if (!under.length) return;
    const { e } = under[0];
    if (!shown.rows.includes(e)) {
      shown.tab = "all";
      drawTabs();
      fill();
    }
    go(e);
  }

  // ---- The lines of the spec that made a cell.

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

  // ---- Search: dims the grid's other cells, finds lines, narrows a list.

  function search() {
    if (shown) {
      fill();
      return;
    }
    const words = $("search").value.trim().toLowerCase();
    const matches = (cell) => [cell.name, cell.scenario, cell.fault, cell.reason, cell.whose, STATES[cell.state][1]]
      .some((text) => text && text.toLowerCase().includes(words));
    document.querySelectorAll("#grids button").forEach((button) => {
      button.classList.toggle("dim", Boolean(words) && !matches(index.cells[button.dataset.place]));
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

  // ---- The rest of the page.

  function drawPage() {
    const counts = new Map();
    for (const cell of index.cells) counts.set(cell.state, (counts.get(cell.state) || 0) + 1);
    $("title").textContent = index.bundle;
    $("counts").textContent = Object.entries(STATES).filter(([state]) => counts.get(state))
      .map(([state, [icon, word]]) => `${icon} ${counts.get(state)} ${word}`).join(" \u00b7 ");
    $("legend").append(...Object.values(STATES).map(([icon, word]) => make("span", {}, `${icon} ${word}`)),
      make("span", {}, "unreached: passed, and none of its faults fired"));
    $("notices").append(...index.notices.map((text) => make("p", { class: "notice" }, text)));
    facts($("facts"), [
      ["recorded", index.recorded], ["by", index.tool && `faultbox ${index.tool}`], ["seed", index.seed],
      ["command", index.command], ["digest", index.digest], ...index.host,
    ]);
  }

  function route() {
    const wanted = address();
    const place = wanted.cell === null ? -1 : index.cells.findIndex((cell) => cell.name === wanted.cell);
    if (place >= 0) {
      openCell(place, wanted);
      return;
    }
    const left = shown;
    shown = null;
    document.title = index.bundle;
    $("cell").hidden = true;
    $("overview").hidden = false;
    if (left) {
      $("search").value = "";
      search();
      const button = document.querySelector(`#grids button[data-place="${left.place}"]`);
      if (button) focusCell(button);
    }
  }

  function escape(event) {
    if (event.key !== "Escape") return;
    if (document.activeElement === $("search") && $("search").value) {
      $("search").value = "";
      search();
    } else if (shown && $("details").contains(document.activeElement)) $("list").focus();
    else if (shown) location.hash = "";
    else return;
    event.preventDefault();
  }

  const THEMES = ["as the system", "light", "dark"];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let theme = 0;
  function setTheme() {
    const now = theme === 0 ? (dark.matches ? "dark" : "light") : THEMES[theme];
    document.documentElement.dataset.theme = now;
    colours.clear();
    $("theme").textContent = `Theme: ${THEMES[theme]}`;
    drawTimeline();
  }

  /** On paper every line of the list is there, up to a bound, in dark ink. */
  function print(begins) {
    document.documentElement.dataset.theme = begins ? "light" : document.documentElement.dataset.theme;
    const lines = begins && shown ? shown.rows.slice(0, MOST_PRINTED) : [];
    $("printed").replaceChildren(...lines.map((e) => make("li", {}, `${ms(e.t)}  ${e.x}`)));
    if (!begins) setTheme();
  }

  setTheme();
  drawPage();
  drawGrids();
  $("grids").addEventListener("keydown", moveInGrid);
  $("list").addEventListener("keydown", moveInList);
  $("tabs").addEventListener("keydown", moveInTabs);
  $("list").addEventListener("scroll", drawRows, { passive: true });
  $("lanes").addEventListener("click", pick);
  $("search").addEventListener("input", search);
  $("to-scale").addEventListener("change", drawTimeline);
  $("outside").addEventListener("change", () => { drawTabs(); fill(); drawTimeline(); });
  $("theme").addEventListener("click", () => { theme = (theme + 1) % THEMES.length; setTheme(); });
  $("copy").addEventListener("click", () => {
    if (navigator.clipboard) navigator.clipboard.writeText($("again").textContent).catch(() => {});
    getSelection().selectAllChildren($("again"));
  });
  document.addEventListener("keydown", escape);
  dark.addEventListener("change", setTheme);
  addEventListener("resize", () => { drawRows(); drawTimeline(); });
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  addEventListener("hashchange", route);
  // The cells come after this script: whoever links to one waits for it.
  if (address().cell === null) route();
  document.addEventListener("DOMContentLoaded", route);
})();
