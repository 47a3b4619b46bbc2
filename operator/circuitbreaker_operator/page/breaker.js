// One breaker: why it is in its state, what comes next, its last hour, history, policy and counters.
// The words are those of `kubectl breaker describe`, the status and the Events.

import { el, instant, length, mark, number, percent, spans, spansText, strip } from "./drawing.js";

/** Draws into `box`. What did not change is left as it is, so that focus and selection stay. */
export function drawBreaker(box, told, nowMs, status) {
  const sections = told.missing ? missing(told) : parts(told, nowMs, status);
  const wanted = new Set(sections.map(({ id }) => id));
  for (const child of [...box.children]) if (!wanted.has(child.dataset.part)) child.remove();
  sections.forEach(({ id, sign, make }, index) => {
    let section = box.querySelector(`[data-part="${id}"]`);
    if (!section) box.insertBefore((section = el("section", { "data-part": id })), box.children[index] ?? null);
    if (section.dataset.sign !== sign) {
      section.dataset.sign = sign;
      section.replaceChildren(...make());
    }
  });
}

const part = (id, what, make) => ({ id, sign: JSON.stringify(what), make: () => make(what) });
const backLink = () => el("a", { className: "back", href: "#/" }, "← All breakers");

function missing(told) {
  return [part("title", told.key, (key) => [backLink(), el("h2", {}, "There is no breaker ", el("strong", {}, key)),
    el("p", {}, "It may have been deleted, or this operator does not serve its namespace.")])];
}

function parts(told, nowMs, status) {
  if (!told.state) return [title(told), conditions(told)];
  return [title(told), part("why", whyOf(told, nowMs, status), drawWhy), hour(told, nowMs), history(told), facts(told), conditions(told)];
}

function title(told) {
  return part("title", [told.namespace, told.name, told.state, told.reason], ([namespace, name, state, reason]) => [
    backLink(),
    el("div", { className: "title" },
      el("h2", {}, el("span", {}, `${namespace}/`), name),
      el("span", { className: "state" }, mark(state), el("b", { "data-bold": "" }, state || "Unknown")),
      el("span", { className: "reason" }, reason ?? "")),
  ]);
}

function whyOf(told, nowMs, status) {
  const lines = [told.message ? `${told.state}: ${told.message}` : told.state, `since ${length(nowMs - told.sinceMs)} ago, at ${instant(told.sinceMs)}`];
  if (told.overrideManager) lines.push(`spec.override was last set by ${told.overrideManager}`);
  if (told.stale && status?.role === "leader") lines.push("Redis does not answer: this is what was last seen of it");
  return { lines, next: nextOf(told, nowMs) };
}

function nextOf(told, nowMs) {
  const policy = told.policy, next = [];
  const when = (ms) => (ms > nowMs ? `in ${length(ms - nowMs)}, at ${instant(ms)}` : "with the next call, or in a moment");
  if (told.forced) {
    const then = told.state === "Open" ? "probes are permitted (HalfOpen)" : "counts start at zero (Closed)";
    return [told.overrideUntilMs ? `the override ends ${when(told.overrideUntilMs)}; then ${then}` : `the override has no end; when it is taken away, ${then}`];
  }
  if (policy.mode === "Observe") next.push("mode Observe: nothing opens it");
  if (told.state === "Open" && told.openUntilMs) next.push(`probes are permitted ${when(told.openUntilMs)}: then it is HalfOpen`);
  if (told.state === "Closed") {
    const opens = policy.mode === "Observe" ? "would open it" : "open it";
    if (policy.failureThreshold) next.push(`${policy.failureThreshold} consecutive failures ${opens} (failureThreshold); ${told.counters.consecutiveFailures} now`);
    const rate = (name, what) => {
      if (!policy[name]) return;
      const is = told.window[name] === null ? `unknown now, with ${told.window.calls} calls in the window of minimumCalls ${policy.minimumCalls}` : `${percent(told.window[name])} of ${told.window.calls} calls now`;
      next.push(`${policy[name]} % of ${what} in ${windowOf(policy)} ${opens} (${name}); ${is}`);
    };
    rate("failureRatePercent", "failed calls");
    rate("slowCallRatePercent", `calls slower than ${policy.slowCallDuration}`);
    if (policy.quorum?.minReporters > 1) next.push(`only when ${policy.quorum.minReporters} client processes have seen failures (quorum.minReporters); ${told.counters.reporters} reported lately`);
  } else {
    next.push(`${policy.successThreshold} successful probes close it (successThreshold), at most ${policy.halfOpenLimit} in flight at once (halfOpenLimit)`);
    if (told.state === "HalfOpen") next.push(`${told.probes.succeededNow} succeeded, ${told.probes.inFlight} in flight now`);
    next.push("the first probe that fails opens it again");
  }
  return next;
}

const windowOf = (policy) => ("calls" in policy.window ? `the last ${policy.window.calls} calls` : policy.window.duration);

function drawWhy({ lines, next }) {
  return [...lines.map((line, index) => el("p", { className: index ? "" : "why" }, line)),
    el("h3", {}, "What comes next"), el("ul", { className: "next" }, ...next.map((line) => el("li", {}, line)))];
}

function hour(told, nowMs) {
  const at = Math.floor(nowMs / 5000) * 5000;
  return part("hour", [told.past, told.state, told.sinceMs, at], ([past, state, sinceMs]) => {
    const made = spans(past, state, sinceMs, at);
    const ticks = [60, 45, 30, 15].map((minutes) => el("span", {}, `${minutes}m ago`));
    return [el("h3", {}, "Last hour"), el("div", { className: "hour" }, strip(made, at, `in the last hour ${spansText(made)}`)),
      el("div", { className: "axis", "aria-hidden": "true" }, ...ticks, el("span", {}, "now")), el("p", { className: "reason" }, `In the last hour ${spansText(made)}.`)];
  });
}

function history(told) {
  return part("history", told.history, (entries) => {
    const rows = entries.map((each) => el("tr", {}, el("td", {}, el("time", { dateTime: each.at }, each.at)),
      el("td", {}, each.from || "(new)"), el("td", {}, el("span", { className: "state" }, mark(each.to), el("b", {}, each.to))), el("td", {}, each.reason), el("td", {}, each.message)));
    const heads = ["At", "From", "To", "Reason", "Why"].map((text) => el("th", { scope: "col" }, text));
    const table = el("table", { className: "history" }, el("caption", { className: "away" }, "History, newest first"), el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows));
    return [el("h3", {}, `History (${entries.length === 256 ? "the newest 256" : number(entries.length)})`), entries.length ? table : el("p", { className: "reason" }, "Not known while Redis does not answer.")];
  });
}

function list(heading, pairs) {
  return el("div", {}, el("h3", {}, heading), el("dl", {}, ...pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, typeof value === "number" ? number(value) : String(value))])));
}

function facts(told) {
  const { policy, window, counters, probes, shadow } = told;
  return part("facts", { policy, window, counters, probes, shadow, attempt: told.attempt }, (what) => {
    const rules = Object.entries(what.policy).flatMap(([name, value]) =>
      (value && typeof value === "object" ? Object.entries(value).map(([inner, each]) => [`${name}.${inner}`, each]) : [[name, value]])).map(([name, value]) => [name, String(value)]);
    const counts = [...Object.entries(what.counters), ["attempt", what.attempt]];
    const inWindow = [["calls", what.window.calls], ["failures", what.window.failures], ["slow", what.window.slow],
      ["failure rate", percent(what.window.failureRatePercent) || "below minimumCalls"],
      ...(what.policy.slowCallRatePercent ? [["slow-call rate", percent(what.window.slowCallRatePercent) || "below minimumCalls"]] : [])];
    const made = list(`Window: ${windowOf(what.policy)}`, inWindow);
    made.append(meter(what.window));
    const { inFlight, succeededNow, ...ended } = what.probes;
    const lists = [list("Policy in force", rules), list("Counters", counts), made, list("Probes", [["in flight", inFlight], ...Object.entries(ended)])];
    if (what.shadow) lists.push(list("Shadow (mode Observe)", Object.entries(what.shadow)));
    return [el("div", { className: "grid facts" }, ...lists)];
  });
}

function meter({ calls, failures }) {
  const bar = el("div", { className: "meter", role: "img", "aria-label": `${number(failures)} of ${number(calls)} calls failed` });
  for (const [state, share] of [["Open", failures], ["Closed", calls - failures]]) {
    const piece = el("span", { "data-state": state });
    piece.style.flexGrow = String(Math.max(0, share));
    bar.append(piece);
  }
  return bar;
}

function conditions(told) {
  return part("conditions", told.conditions, (found) => [el("h3", {}, "Conditions"),
    found.length ? el("ul", { className: "conditions" }, ...found.map((each) => el("li", {}, el("b", {}, `${each.type} ${each.status}`), `, ${each.reason}${each.message ? `: ${each.message}` : ""}`)))
      : el("p", { className: "reason" }, "No operator has written a status for it yet.")]);
}
