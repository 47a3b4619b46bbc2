// The page: a list that keeps itself current, and one breaker at a time. State lives in `model`, and is drawn from there.

import { HOUR_MS, STATES, el, instant, length, mark, number, percent, spans, spansText, strip } from "./drawing.js";
import { drawBreaker } from "./breaker.js";

const SILENCE_MS = 8000; // the stream says something every 3 s
const LOOK_MS = 2000;
const AROUND = 8; // rows drawn beyond what is seen, above and below
const MOST_LOOKED_AT = 40;
const SAY_MS = 3000;
const ANSWER_MS = 10000;
const LIST_MS = 30000; // lists are made one at a time, for all pages that an operator has

const $ = (id) => document.getElementById(id);
const model = {
  rows: new Map(), columns: [], at: "", status: null, aheadMs: 0, link: "waiting", lostAt: 0, why: "", tries: 0, heardAt: 0,
  text: "", states: new Set(), sort: "state", down: false, shown: [], breaker: null, held: null,
};
const now = () => Date.now() + model.aheadMs;
const ask = (path, ms = ANSWER_MS) => fetch(path, { signal: AbortSignal.timeout(ms) });

// ---------------------------------------------------------------- columns

const RANK = { Open: 0, HalfOpen: 1, Closed: 3, "": 2 };
const byName = (a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0);
const COLUMNS = [ // `falls`: the largest come first, until it is turned round
  { id: "name", title: "Name", sort: () => 0 },
  { id: "state", title: "State", sort: (row) => RANK[row.state] },
  { id: "reason", title: "Reason", sort: (row) => row.reason },
  { id: "past", title: "Last hour", falls: true, sort: (row) => -row.past.length },
  { id: "rate", title: "Rate", right: true, falls: true, sort: (row) => -(row.failureRatePercent ?? -1) },
  { id: "fail", title: "Failures", right: true, falls: true, sort: (row) => -row.consecutiveFailures },
  { id: "refused", title: "Refused", right: true, falls: true, sort: (row) => -row.notPermitted },
  { id: "retry", title: "Retry in", right: true, sort: (row) => row.openUntilMs ?? Infinity },
  { id: "since", title: "Since", right: true, sort: (row) => -(row.sinceMs ?? 0) },
];

function drawHeads() {
  $("heads").replaceChildren(...COLUMNS.map((column) => {
    const head = el("th", { scope: "col", className: `c-${column.id}${column.right ? " right" : ""}` },
      el("button", { type: "button", onclick: () => sortBy(column.id) }, column.title));
    if (model.sort === column.id) head.setAttribute("aria-sort", model.down === Boolean(column.falls) ? "ascending" : "descending");
    return head;
  }));
}

function sortBy(id) {
  model.down = model.sort === id && !model.down;
  model.sort = id;
  drawHeads();
  remember();
  arrange();
  document.querySelector(`.c-${id} button`).focus();
}

// ---------------------------------------------------------------- which rows, in which order

function matches(row, words) {
  return (!model.states.size || model.states.has(row.state)) && words.every((word) => row.text.includes(word));
}

function arrange() {
  const words = model.text.toLowerCase().split(/\s+/).filter(Boolean);
  const sort = COLUMNS.find((column) => column.id === model.sort).sort;
  const found = [];
  for (const row of model.rows.values()) {
    if (matches(row, words)) { row.rank = sort(row); found.push(row); }
  }
  const sign = model.down ? -1 : 1;
  found.sort((a, b) => sign * (a.rank < b.rank ? -1 : a.rank > b.rank ? 1 : byName(a, b)));
  model.shown = found;
  drawTools();
  drawNothing();
  drawRows();
}

let arranging = 0;
function arrangeSoon() { // ten thousand rows are not put in order for each change of a storm
  if (!arranging) arranging = setTimeout(() => { arranging = 0; arrange(); }, model.rows.size > 2000 ? 300 : 30);
}

const chips = new Map();
function drawTools() {
  const counts = { Open: 0, HalfOpen: 0, Closed: 0 };
  for (const row of model.rows.values()) if (row.state in counts) counts[row.state] += 1;
  for (const state of STATES) {
    if (!chips.has(state)) {
      const total = el("b");
      const chip = el("button", { type: "button", className: "chip", onclick: () => toggle(state) }, mark(state), `${state} `, total);
      chips.set(state, { chip, total });
      $("states").append(chip);
    }
    const { chip, total } = chips.get(state);
    total.textContent = number(counts[state]);
    chip.setAttribute("aria-pressed", String(model.states.has(state)));
  }
  const all = model.rows.size, some = model.shown.length;
  $("count").textContent = all === 0 ? "" : some === all ? `${number(all)} breakers` : `${number(some)} of ${number(all)} breakers`;
  if (!model.breaker) document.title = counts.Open && !document.hidden ? `(${counts.Open} Open) Circuit breakers` : "Circuit breakers";
}

function toggle(state) {
  if (!model.states.delete(state)) model.states.add(state);
  remember();
  arrange();
}

function clearFilters() {
  model.states.clear();
  model.text = $("text").value = "";
  remember();
  arrange();
  $("text").focus();
}

// ---------------------------------------------------------------- rows: only those that can be seen are there

const drawn = new Map(); // key -> row of the table
let rowHeight = 44;

function makeRow(row) {
  const cells = {};
  const tr = el("tr");
  cells.link = el("a", { href: hrefOf(row) });
  cells.tags = el("span");
  cells.mark = el("span", { className: "state" });
  tr.append(el("th", { scope: "row", className: "c-name" }, cells.link));
  tr.append(el("td", { className: "c-state" }, cells.mark, cells.tags));
  for (const { id, right } of COLUMNS.slice(2)) {
    cells[id] = el("td", { className: `c-${id} ${id === "reason" ? "reason" : ""}${right ? "right" : ""}` });
    tr.append(cells[id]);
  }
  cells.link.append(el("span", { className: "space" }, `${row.namespace}/`), row.name);
  cells.link.title = row.key;
  tr.addEventListener("click", (event) => { if (!event.target.closest("a") && !String(getSelection())) location.hash = hrefOf(row); });
  return { tr, cells, row: null, state: null, past: "" };
}

function fillRow(made, row) {
  const { tr, cells } = made;
  if (made.row !== row) {
    made.row = row;
    tr.dataset.row = row.state;
    tr.dataset.key = row.key;
    cells.mark.replaceChildren(mark(row.state), el("b", {}, row.state || "Unknown"));
    cells.tags.replaceChildren(...tagsOf(row));
    set(cells.reason, row.reason);
    set(cells.rate, percent(row.failureRatePercent));
    set(cells.fail, row.state ? number(row.consecutiveFailures) : "");
    set(cells.refused, row.state ? number(row.notPermitted) : "");
    cells.rate.title = row.slowCallRatePercent === null ? "" : `slow calls ${percent(row.slowCallRatePercent)}`;
    cells.refused.title = row.trips ? `opened ${number(row.trips)} times` : "";
  }
  const at = now();
  set(cells.retry, row.openUntilMs === null ? "" : row.openUntilMs > at ? length(row.openUntilMs - at) : "due");
  set(cells.since, row.sinceMs === null ? "" : length(at - row.sinceMs));
  const part = `${row.at}.${Math.floor(at / 10000)}`; // the hour moves on
  if (made.past !== part && row.sinceMs !== null) {
    made.past = part;
    const shown = spans(row.past, row.state, row.sinceMs, at);
    cells.past.replaceChildren(strip(shown, at, `in the last hour ${spansText(shown)}`));
  }
}

function set(cell, text) { if (cell.textContent !== text) cell.textContent = text; }

function tagsOf(row) {
  const tags = [];
  if (row.forced) tags.push(el("span", { className: "tag", title: "held by spec.override" }, "held"));
  if (row.mode) tags.push(el("span", { className: "tag", title: "mode Observe refuses nothing" }, row.mode));
  if (row.notReady) tags.push(el("span", { className: "tag", "data-wrong": "", title: "the spec as it is now is not in force" }, row.notReady));
  return tags;
}

function drawRows() {
  if (model.breaker || $("list").hidden) return;
  const shown = model.shown;
  const top = -$("before").getBoundingClientRect().top;
  let first = Math.min(shown.length, Math.max(0, Math.floor(top / rowHeight) - AROUND));
  const last = Math.min(shown.length, first + Math.ceil(innerHeight / rowHeight) + 2 * AROUND);
  if (last === shown.length) first = Math.max(0, Math.min(first, last - Math.ceil(innerHeight / rowHeight) - AROUND));
  $("before").style.height = `${first * rowHeight}px`;
  $("after").style.height = `${(shown.length - last) * rowHeight}px`;
  const body = $("rows");
  const wanted = shown.slice(first, last);
  const keys = new Set(wanted.map((row) => row.key));
  for (const [key, made] of drawn) {
    if (!keys.has(key) && !made.tr.contains(document.activeElement)) { made.tr.remove(); drawn.delete(key); }
  }
  let place = body.firstElementChild;
  wanted.forEach((row, index) => {
    if (!drawn.has(row.key)) drawn.set(row.key, makeRow(row));
    const made = drawn.get(row.key);
    fillRow(made, row);
    made.tr.setAttribute("aria-rowindex", String(first + index + 2));
    if (made.tr === place) place = place.nextElementSibling;
    else body.insertBefore(made.tr, place);
  });
  for (const [key, made] of drawn) { // the row with the focus, when it is out of sight or no longer matches
    if (!keys.has(key)) { made.tr.remove(); drawn.delete(key); }
  }
  $("table").setAttribute("aria-rowcount", String(shown.length + 1));
  const height = body.firstElementChild?.offsetHeight;
  if (height && Math.abs(height - rowHeight) > 0.5) { rowHeight = height; drawRows(); }
}

let drawing = 0;
function drawSoon() { if (!drawing) drawing = requestAnimationFrame(() => { drawing = 0; drawRows(); }); }
addEventListener("scroll", drawSoon, { passive: true });
addEventListener("resize", drawSoon);

function drawNothing() {
  const box = $("nothing"), status = model.status;
  let parts = [];
  if (!status || model.shown.length) parts = [];
  else if (status.role === "standby") parts = standby(status);
  else if (status.role !== "leader" || !status.synced || !status.kind) parts = starting(status);
  else if (model.rows.size) parts = [el("h2", {}, "No breaker matches"), el("button", { type: "button", className: "plain", onclick: clearFilters }, "Clear the filters")];
  else parts = first(status);
  box.hidden = !parts.length;
  const sign = parts.map((part) => part.textContent).join();
  if (box.dataset.sign !== sign) { box.dataset.sign = sign; box.replaceChildren(...parts); }
  $("table").hidden = !model.shown.length;
  document.querySelector(".tools").hidden = !model.rows.size;
}

function first(status) {
  const where = status.namespaces.length ? `in the namespaces ${status.namespaces.join(", ")}` : "in any namespace";
  const lines = ["kubectl apply -f - <<EOF", "apiVersion: circuitbreaker.dev/v1alpha1", "kind: CircuitBreaker", "metadata:", "  name: payments",
    "spec:", "  failureThreshold: 5     # consecutive failures, over all processes together", "  recoveryTimeout: 30s    # how long it stays Open before probes", "EOF"];
  return [el("h2", {}, "No breakers yet"), el("p", {}, `There is no CircuitBreaker ${where}. The first one is made like this, and shows here at once:`), el("pre", { tabIndex: 0 }, lines.join("\n"))];
}

function standby(status) {
  const parts = [el("h2", {}, "This replica stands by")];
  if (!status.leaseSeen) parts.push(el("p", {}, "It cannot read the Lease, so it does not know which replica leads. Its log says why."));
  else if (!status.leader) parts.push(el("p", {}, "No replica leads at the moment. One takes over within seconds, and this page goes on by itself."));
  else {
    parts.push(el("p", {}, "Breakers are shown by the one that leads: ", el("strong", {}, status.leader), ". To look there:"));
    parts.push(el("pre", { tabIndex: 0 }, `kubectl -n ${status.leaseNamespace} port-forward pod/${status.leader} 8000`));
  }
  return parts;
}

function starting(status) {
  const waits = [];
  if (status.role !== "leader") waits.push("it asks the API server whose breakers these are");
  else {
    if (!status.redis) waits.push("Redis does not answer");
    if (!status.api) waits.push("the API server does not answer");
    if (!status.kind) waits.push("the CustomResourceDefinition circuitbreakers.circuitbreaker.dev is missing, or has not been found yet");
    if (!waits.length) waits.push("it compares Redis and the API server");
  }
  return [el("h2", {}, "The operator is starting"), el("p", {}, `Nothing is known yet: ${waits.join("; ")}. This page goes on by itself.`)];
}

// ---------------------------------------------------------------- what is wrong, said above everything

function drawBanners() {
  const told = [], status = model.status; // [what, more of it, and its age in ms]
  if (model.link === "lost") told.push(["No live updates.", `${model.why} Trying again.`, model.lostAt ? Date.now() - model.lostAt : null]);
  else if (status?.role === "leader" && model.rows.size) {
    if (!status.redis) told.push(["Redis does not answer.", "Services go on with what they know.", status.redisAwaySeconds * 1000]);
    if (!status.api) told.push(["The API server does not answer.", "States are live, from Redis; breakers that are made, edited or deleted now do not show.", null]);
    if (!status.kind) told.push(["The CustomResourceDefinition is missing.", "kubectl apply -f crds/circuitbreakers.yaml", null]);
  }
  const words = { live: "Live", waiting: "Connecting", lost: "Not live" };
  const word = model.link === "live" && status?.role === "standby" ? "Standby" : words[model.link];
  const box = $("banners");
  const sign = told.map(([what, more]) => `${what} ${more}`).join(" ");
  if (box.dataset.sign !== sign) {
    $("warned").textContent = sign || (box.dataset.sign ? word : "");
    box.dataset.sign = sign;
    box.replaceChildren(...told.map(([what, more]) => el("p", { className: "banner" }, el("strong", {}, what), ` ${more} `, el("span"))));
  }
  told.forEach(([, , ageMs], index) => set(box.children[index].lastChild, ageMs === null ? "" : `What you see is ${length(ageMs)} old.`));
  document.body.classList.toggle("stale", model.link === "lost" || (status?.role === "leader" && !status.redis));
  $("link").dataset.is = word === "Standby" ? "waiting" : model.link;
  set($("link-text"), word);
}

// ---------------------------------------------------------------- said to those who do not see it

const news = new Map();
let saidAt = 0;
function announce(row) { news.set(row.key, row); }
function sayNews() {
  if (!news.size || Date.now() - saidAt < SAY_MS) return;
  saidAt = Date.now();
  const rows = [...news.values()];
  news.clear();
  const counts = STATES.map((state) => [state, rows.filter((row) => row.state === state).length]).filter(([, many]) => many);
  $("said").textContent = rows.length <= 2 ? rows.map((row) => `${row.key} is ${row.state}`).join(". ")
    : `${rows.length} breakers changed: ${counts.map(([state, many]) => `${many} ${state}`).join(", ")}`;
}

// ---------------------------------------------------------------- the stream

function rowOf(values) {
  const row = {};
  model.columns.forEach((name, index) => { row[name] = values[index]; });
  row.key = `${row.namespace}/${row.name}`;
  row.text = `${row.key} ${row.state} ${row.reason} ${row.mode} ${row.notReady} ${row.forced ? "held" : ""}`.toLowerCase();
  row.at = `${row.sinceMs}.${row.past.length}`;
  return row;
}

function take(change) {
  for (const values of change.rows) {
    const row = rowOf(values);
    const before = model.rows.get(row.key);
    model.rows.set(row.key, row);
    if (row.state && (before ? before.state !== row.state : model.at)) {
      announce(row);
      row.isNew = true;
    }
  }
  for (const key of change.gone) model.rows.delete(key);
  arrangeSoon();
  for (const values of change.rows) flash(`${values[0]}/${values[1]}`);
  const shown = model.breaker;
  if (shown && (change.gone.includes(shown) || change.rows.some((values) => `${values[0]}/${values[1]}` === shown))) readBreaker();
}

function flash(key) {
  const row = model.rows.get(key), made = drawn.get(key);
  if (!row?.isNew || !made) return;
  row.isNew = false;
  made.tr.classList.remove("new");
  requestAnimationFrame(() => made.tr.classList.add("new"));
}

function takeStatus(status) {
  const before = model.status;
  model.status = status;
  model.aheadMs = status.nowMs - Date.now();
  set($("version"), `circuitbreaker-operator ${status.version}`);
  if (before && before.role !== status.role) reread();
  drawNothing();
  drawBanners();
}

let source = null;
function connect() {
  source?.close();
  source = new EventSource(`api/events${model.at ? `?after=${encodeURIComponent(model.at)}` : ""}`);
  model.heardAt = Date.now();
  const hear = (kind, work) => source.addEventListener(kind, (event) => {
    if (event.target !== source) return;
    model.heardAt = Date.now();
    work(JSON.parse(event.data), event.lastEventId);
  });
  hear("hello", (hello) => {
    model.tries = 0;
    if (hello.resumed) live(hello.status);
    else reread();
  });
  hear("rows", (change, id) => {
    if (model.held) { model.held.push([change, id]); return; }
    take(change);
    model.at = id;
  });
  hear("status", takeStatus);
  source.onerror = () => lost();
}

async function reread() {
  const held = model.held = []; // what comes meanwhile is newer than the list, or in it
  try {
    const answer = await ask("api/breakers", LIST_MS);
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const listing = await answer.json();
    if (model.held !== held) return; // another one has begun, or the stream has ended
    model.columns = listing.columns;
    model.rows = new Map(listing.rows.map((values) => { const row = rowOf(values); return [row.key, row]; }));
    model.held = null;
    model.at = listing.at;
    for (const [change, id] of held) {
      if (Number(id.split("-")[1]) > Number(model.at.split("-")[1])) { take(change); model.at = id; }
    }
    live(listing.status);
    arrange();
    if (model.breaker) readBreaker();
  } catch {
    if (model.held === held) lost();
  }
}

function live(status) {
  model.link = "live";
  model.lostAt = 0;
  model.why = "";
  takeStatus(status);
}

let retry = 0;
function leave(link) {
  source?.close();
  source = null;
  clearTimeout(retry);
  if (model.held) { // a list that did not come is asked for again
    model.held = null;
    model.at = "";
  }
  if (model.link === "live") model.lostAt = model.heardAt;
  model.link = link;
}

async function lost() {
  leave("lost");
  model.tries += 1;
  retry = setTimeout(connect, Math.min(10000, 500 * 2 ** model.tries) * (0.75 + Math.random() / 2));
  model.why ||= "The connection broke.";
  drawBanners();
  const why = await whyLost();
  if (model.link !== "lost") return;
  model.why = why;
  drawBanners();
}

async function whyLost() {
  try {
    const answer = await ask("api/look");
    if (!answer.ok) return `The operator answers with ${answer.status}.`;
    return (await answer.json()).room ? "The connection broke." : "As many pages are open as this operator serves.";
  } catch {
    return "The operator does not answer.";
  }
}

// ---------------------------------------------------------------- one breaker

function hrefOf(row) { return `#/${row.namespace}/${row.name}`; }

async function readBreaker() {
  const key = model.breaker;
  if (!key || model.link === "lost") return;
  const before = model.told?.key === key ? model.told : null;
  const known = before?.known ?? ""; // the generation whose whole history is here
  let told;
  try {
    const answer = await ask(`api/breakers/${key.split("/").map(encodeURIComponent).join("/")}?known=${encodeURIComponent(known)}`);
    told = await answer.json();
    if (!answer.ok) told.missing = true;
  } catch {
    return; // the stream says that nobody answers
  }
  if (model.breaker !== key) return;
  const unchanged = told.history === null;
  if (unchanged) told.history = before.history;
  model.told = { ...told, key, known: unchanged ? known : told.stale ? "" : told.generation };
  showBreaker();
}

function showBreaker() {
  if (!model.told || model.told.key !== model.breaker) return;
  drawBreaker($("one"), model.told, now(), model.status);
}

// ---------------------------------------------------------------- where we are: #/namespace/name, or #/?q=...&state=...&sort=...

function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [namespace, name] = path.split("/").map((part) => { try { return decodeURIComponent(part); } catch { return ""; } });
  const before = model.breaker;
  if (!before) model.scroll = scrollY; // before the list is hidden, and the document short
  model.breaker = namespace && name ? `${namespace}/${name}` : null;
  $("list").hidden = Boolean(model.breaker);
  $("one").hidden = !model.breaker;
  if (model.breaker) {
    document.title = `${model.breaker} · Circuit breakers`;
    if (before !== model.breaker) {
      model.told = null;
      $("one").replaceChildren(el("p", {}, "Reading …"));
      scrollTo(0, 0);
      $("main").focus({ preventScroll: true });
      readBreaker();
    }
    return;
  }
  if (query !== undefined || before === null) {
    const asked = new URLSearchParams(query ?? "");
    model.text = $("text").value = asked.get("q") ?? "";
    model.states = new Set(asked.getAll("state").filter((state) => STATES.includes(state)));
    const sort = asked.get("sort") ?? "state";
    model.down = sort.startsWith("-");
    const id = sort.replace("-", "");
    model.sort = COLUMNS.some((column) => column.id === id) ? id : "state";
  }
  drawHeads();
  arrange();
  if (before) {
    scrollTo(0, model.scroll);
    drawRows();
    (drawn.get(before)?.cells.link ?? $("main")).focus({ preventScroll: true });
  }
}

function remember() {
  const asked = new URLSearchParams();
  if (model.text) asked.set("q", model.text);
  for (const state of model.states) asked.append("state", state);
  if (model.sort !== "state" || model.down) asked.set("sort", (model.down ? "-" : "") + model.sort);
  model.query = String(asked);
  history.replaceState(null, "", model.query ? `#/?${model.query}` : "#/");
}

function back() { location.hash = model.query ? `#/?${model.query}` : "#/"; }

// ---------------------------------------------------------------- keys and clicks

function focusRow(index) {
  const row = model.shown[index];
  if (!row) return;
  const top = $("before").getBoundingClientRect().top + index * rowHeight;
  const covered = 7 * rowHeight / 2;
  if (top < covered) scrollBy(0, top - covered);
  else if (top + rowHeight > innerHeight) scrollBy(0, top + rowHeight - innerHeight + rowHeight);
  drawRows();
  drawn.get(row.key)?.cells.link.focus({ preventScroll: true });
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const typing = event.target === $("text");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    if (model.breaker) {
      back();
      setTimeout(() => $("text").focus()); // once the list is there again
    } else $("text").focus(); // at once: the next key belongs there
  } else if (event.key === "Escape") {
    if (model.breaker) back();
    else if (model.text) { model.text = $("text").value = ""; remember(); arrange(); }
  } else if (!model.breaker && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    const key = document.activeElement.closest?.("tr")?.dataset.key;
    const index = key ? model.shown.findIndex((row) => row.key === key) : -1;
    if (index < 0 && !typing && document.activeElement !== document.body && document.activeElement !== $("main")) return;
    event.preventDefault();
    if (event.key === "ArrowUp" && index === 0) $("text").focus();
    else focusRow(event.key === "ArrowDown" ? index + 1 : Math.max(0, index - 1));
  }
});
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  if (model.shown.length) location.hash = hrefOf(model.shown[0]);
});
$("text").addEventListener("input", () => { model.text = $("text").value; remember(); arrange(); scrollTo(0, 0); });
$("skip").addEventListener("click", (event) => { event.preventDefault(); $("main").focus(); });
addEventListener("hashchange", route);
history.scrollRestoration = "manual"; // a browser that scrolls before `route` leaves nothing to remember

// ---------------------------------------------------------------- time passes

setInterval(() => {
  if (source && Date.now() - model.heardAt > SILENCE_MS) lost();
  if (model.breaker) showBreaker();
  else drawRows();
  drawBanners();
  sayNews();
}, 1000);

async function poll() {
  if (model.breaker) { await readBreaker(); return; }
  const seen = [...$("rows").children].filter((tr) => { const { bottom, top } = tr.getBoundingClientRect(); return bottom > 0 && top < innerHeight; });
  const keys = seen.slice(0, MOST_LOOKED_AT).map((tr) => `key=${encodeURIComponent(tr.dataset.key)}`);
  if (keys.length) await ask(`api/look?${keys.join("&")}`).catch(() => {}); // what it finds comes over the stream
}

let polling = false;
setInterval(async () => {
  if (polling || document.hidden || model.link !== "live") return;
  polling = true;
  try { await poll(); } finally { polling = false; }
}, LOOK_MS);

// ---------------------------------------------------------------- whether anybody looks

// A browser has six connections for all tabs of one host, and a stream takes one for as long as it lasts.
function attend() {
  if (document.hidden) leave(model.link === "live" ? "waiting" : model.link);
  else connect();
  drawTools();
  drawBanners();
}
document.addEventListener("visibilitychange", attend);

route();
attend();
