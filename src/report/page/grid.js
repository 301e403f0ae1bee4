// The grid: scenarios under faults, and tests that stand alone; what there is to look at beside verdicts. The runs of a
// cell share a place.

const WORST = ["failed", "error", "inconclusive", "incomplete", "unreached", "passed"];

/** A button for a cell: for all of its runs, where it has several. It opens the first that is other than passed. */
function cellButton(places) {
  const cells = places.map((place) => index.cells[place]);
  const states = cells.map((cell) => cell.state);
  const at = Math.max(0, states.findIndex((state) => state !== "passed"));
  const cell = cells[at];
  const one = cells.length === 1;
  const good = states.filter((state) => state === "passed" || state === "unreached").length;
  const mixed = good > 0 && good < cells.length;
  const state = mixed ? "flaky" : WORST.find((state) => states.includes(state));
  const [icon, word] = STATES[state];
  const took = cell.duration_ms === undefined ? "" : `${cell.duration_ms} ms`;
  const passed = `${good} of ${cells.length} passed`;
  const under = cell.fault ? `under ${cell.fault}` : "without a fault";
  const said = `${word}${mixed ? `, ${passed}` : one ? "" : `, ${cells.length} runs`}`;
  const label = `${cell.scenario || cell.name} ${under}: ${said}${cell.reason ? `, ${cell.reason}` : ""}`;
  return make("button", {
    type: "button", class: state, tabindex: -1, "data-places": places.join(" "), "aria-label": label, title: cell.reason,
    on: { click: () => { location.hash = link({ cell: cell.name }); } },
  }, `${icon} ${word}`, make("small", {}, mixed ? passed : one ? took : `${cells.length} runs`));
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
      const places = cells.get(column);
      const held = places === undefined
        ? make("span", { class: "none", "aria-label": "not in the plan" }, "\u2013")
        : cellButton(places);
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
  const put = (rows, row, column, place) => {
    if (!rows.has(row)) rows.set(row, new Map());
    const cells = rows.get(row);
    if (!cells.has(column)) cells.set(column, []);
    cells.get(column).push(place);
  };
  index.cells.forEach((cell, place) => {
    if (cell.fault === null || cell.fault === undefined) {
      put(plain, cell.of, "", place);
      return;
    }
    if (!columns.includes(cell.fault)) columns.push(cell.fault);
    put(matrix, cell.scenario, cell.fault, place);
  });
  if (matrix.size) $("grids").append(grid("Scenarios under each fault", columns, matrix));
  if (plain.size) $("grids").append(grid("Tests", [""], plain));
  const first = document.querySelector("td button.failed, td button.flaky") || document.querySelector("td button");
  if (first) first.tabIndex = 0;
}

/** What cells say of themselves beside their verdicts, with a link to each. */
function drawFindings() {
  const lines = index.cells.flatMap((cell) => (cell.findings || []).map((said) => [cell.name, said]));
  if (!lines.length && !index.flaky.length) return;
  const shown = lines.slice(0, MOST_FOUND).map(([name, said]) =>
    make("li", {}, make("a", { href: link({ cell: name }) }, name), `: ${said}`));
  const more = lines.length - shown.length;
  $("findings").append(make("h2", {}, "To look at"), make("ul", { class: "finds" },
    ...index.flaky.map((said) => make("li", {}, `flaky: ${said}`)), ...shown));
  if (more) $("findings").append(make("p", { class: "hint" }, `${more} more: the cells have them.`));
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
