// Makes elements and drawings. Whatever comes from outside goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";
export const STATES = ["Open", "HalfOpen", "Closed"]; // what needs a look comes first
export const HOUR_MS = 3600000;
const HEIGHTS = { Closed: 3, HalfOpen: 7, Open: 12 }; // so that no colour says anything alone
const NARROWEST_MS = 40000; // what is shorter would not be seen

/** An element with properties and children; a child that is a string becomes text. */
export function el(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((each) => each !== null && each !== undefined));
  return made;
}

export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** The mark of a state: a disc as full as the share of calls that pass. */
export function mark(state) {
  const made = svg("svg", { class: "mark", viewBox: "0 0 16 16", "aria-hidden": "true", "data-state": state });
  made.append(svg("circle", { class: "ring", cx: 8, cy: 8, r: 5.5 }));
  if (state === "Closed") made.append(svg("circle", { class: "fill", cx: 8, cy: 8, r: 5.5 }));
  if (state === "HalfOpen") made.append(svg("path", { class: "fill", d: "M8 2.5a5.5 5.5 0 0 0 0 11z" }));
  return made;
}

/** `[state, from, to]` of the last hour, oldest first. `past` is [state, at, state, at, ...]; "" is: not there yet. */
export function spans(past, state, sinceMs, nowMs) {
  const start = nowMs - HOUR_MS;
  let told = past;
  if (!told.length) told = sinceMs > start ? ["", sinceMs, state] : [state];
  const made = [];
  for (let index = 0; index < told.length; index += 2) {
    const from = Math.max(start, index ? told[index - 1] : start);
    const to = Math.min(nowMs, index + 1 < told.length ? told[index + 1] : nowMs);
    if (to > from || index + 2 > told.length) made.push([told[index], from, Math.max(from, to)]);
  }
  return made;
}

/** In words what the drawing shows. */
export function spansText(made) {
  const opened = made.filter(([state]) => state === "Open");
  if (!opened.length) return made.some(([state]) => state === "HalfOpen") ? "HalfOpen" : "not Open";
  const ms = opened.reduce((sum, [, from, to]) => sum + to - from, 0);
  return `Open ${opened.length === 1 ? "once" : `${opened.length} times`}, ${length(ms)} in all`;
}

/** The last hour as a strip: the higher, the fewer calls pass. */
export function strip(made, nowMs, label) {
  const drawn = svg("svg", { class: "strip", viewBox: `0 0 ${HOUR_MS} 12`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  const start = nowMs - HOUR_MS;
  // Closed first: what is drawn wider than it lasted covers it, and is not covered by it.
  const order = [...made].sort((one, other) => (HEIGHTS[one[0]] || 0) - (HEIGHTS[other[0]] || 0));
  for (const [state, from, to] of order) {
    if (!HEIGHTS[state]) continue;
    const wide = state === "Closed" ? to - from : Math.max(NARROWEST_MS, to - from);
    const x = Math.min(from - start, HOUR_MS - wide);
    drawn.append(svg("rect", { "data-state": state, x, y: 12 - HEIGHTS[state], width: wide, height: HEIGHTS[state] }));
  }
  return drawn;
}

/** A length as kubectl breaker says it: `1m30s`, whole seconds, days from two days on. */
export function length(ms) {
  const seconds = Math.floor(Math.max(0, ms) / 1000);
  if (seconds >= 172800) return `${Math.floor(seconds / 86400)}d`;
  const parts = [[3600, "h"], [60, "m"], [1, "s"]];
  let left = seconds, text = "";
  for (const [size, unit] of parts) {
    if (left >= size) text += `${Math.floor(left / size)}${unit}`;
    left %= size;
  }
  return text || "0s";
}

export const instant = (ms) => new Date(ms).toISOString();
export const percent = (rate) => (rate === null || rate === undefined ? "" : `${rate.toFixed(1)} %`);
export const number = (value) => value.toLocaleString("en");
