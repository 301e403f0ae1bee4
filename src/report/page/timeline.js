// The timeline of a cell: a lane for each service.

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
