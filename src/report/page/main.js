// The rest of the page, and what begins it.

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
    const button = document.querySelector(`#grids button[data-places~="${left.place}"]`);
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
drawFindings();
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
