// Small helpers, and what is in the address: `#cell=NAME&tab=TAB&event=NUMBER`.

const STATES = {
  passed: ["\u2713", "passed"],
  failed: ["\u2717", "failed"],
  unreached: ["\u25b3", "unreached"],
  flaky: ["\u2248", "flaky"],
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
