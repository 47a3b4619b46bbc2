"""One breaker on one page: policy in force, counters, window, probes, reporters, next steps. Pure.

With Redis the counters are those of this moment, and the last hour is whole; without, both are those of the status.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from rich.text import Text

from circuitbreaker_cli.breakers import last_hour, transitions
from circuitbreaker_cli.breakers.explaining import next_steps, why, window
from circuitbreaker_cli.breakers.view import View, part, whole
from circuitbreaker_cli.marks import ASCII, STYLES, Glyphs, state_text
from circuitbreaker_cli.words import percent, safe
from circuitbreaker_contract.state import Snapshot, State
from circuitbreaker_operator import times

_BAR: Final = 40  # characters
_OF_REDIS: Final = "now"


def page(view: View, now_ms: int, snapshot: Snapshot | None = None, glyphs: Glyphs = ASCII) -> Text:
    """The whole page."""
    text = Text()
    for title, lines in _sections(view, now_ms, snapshot, glyphs):
        made = list(lines)
        if made:
            text.append(f"{title}\n", style="bold")
            for line in made:
                text.append("  ").append(line).append("\n")
    text.rstrip()
    return text


def _sections(
    view: View, now_ms: int, snapshot: Snapshot | None, glyphs: Glyphs
) -> Iterator[tuple[str, Iterable[str | Text]]]:
    mark = Text.assemble(view.full_name, "  ", state_text(view.state, glyphs), "  ", view.reason)
    yield "Breaker", [mark]
    yield "Why", why(view, now_ms)
    yield "Next", next_steps(view, now_ms)
    yield "Policy in force", _policy(view.policy)
    yield "Last hour", _last_hour(view, now_ms, snapshot, glyphs)
    yield "Window", _window(view, snapshot)
    yield "Counters" + (f" ({_OF_REDIS}, from Redis)" if snapshot else ""), _counters(view, snapshot)
    yield "Probes", _probes(snapshot) if snapshot else []
    yield "Conditions", _conditions(view)
    yield "Last transitions", _transitions(transitions.of_status(view)[0], glyphs)


def _policy(policy: Mapping[str, Any]) -> Iterator[str]:
    """A line for each field, in the words of spec."""
    for name, value in policy.items():
        if isinstance(value, Mapping):
            yield from (safe(f"{name}.{inner} {each}") for inner, each in value.items())
        else:
            yield safe(f"{name} {value}")


def bar(calls: int, failures: int, slow: int, width: int = _BAR) -> Text:
    """Shares of the window: `#` failed, `~` slow (some of them failed as well), `=` the rest."""
    if calls <= 0:
        return Text("empty")
    failed = _cells(failures, calls, width)
    slowed = min(width - failed, _cells(max(0, slow - failures), calls, width))
    return Text.assemble(
        ("#" * failed, STYLES[State.OPEN]),
        ("~" * slowed, STYLES[State.HALF_OPEN]),
        ("=" * (width - failed - slowed), STYLES[State.CLOSED]),
    )


def _cells(share: int, calls: int, width: int) -> int:
    """At least one for what is there at all, and never more than fit."""
    return 0 if share <= 0 else min(width, max(1, round(width * share / calls)))


def _last_hour(view: View, now_ms: int, snapshot: Snapshot | None, glyphs: Glyphs) -> Iterator[str | Text]:
    if snapshot:
        now_ms = snapshot.now_ms
        known = last_hour.spans(transitions.of_snapshot(snapshot), snapshot.state.value, snapshot.since_ms, now_ms)
    else:
        known = last_hour.spans(transitions.of_status(view)[0], view.state, view.since_ms, now_ms)
    if known:
        yield last_hour.strip(known, now_ms, glyphs)
        yield last_hour.in_words(known, now_ms)


def _window(view: View, snapshot: Snapshot | None) -> Iterator[str | Text]:
    if snapshot:
        counts, minimum = snapshot.window, snapshot.policy.minimum_calls
        calls, failures, slow = counts.calls, counts.failures, counts.slow
        rates = counts.failure_rate_percent(minimum), counts.slow_call_rate_percent(minimum)
    else:
        shown = part(view.status, "window")
        calls, failures, slow = (whole(shown, name) for name in ("calls", "failures", "slow"))
        rates = view.rate("failureRatePercent"), view.rate("slowCallRatePercent")
    if not view.policy:
        return
    yield f"{window(view)}: {calls} calls, {failures} failed, {slow} slow"
    if rates[0] is not None:
        yield f"failure rate {percent(rates[0])}" + (
            f", slow calls {percent(rates[1])}" if rates[1] is not None and "slowCallRatePercent" in view.policy else ""
        )
    yield bar(calls, failures, slow)


def _counters(view: View, snapshot: Snapshot | None) -> Iterator[str]:
    totals: Mapping[str, Any] = part(view.status, "totals")
    streak, reporters = view.number("consecutiveFailures"), view.number("reporters")
    if snapshot:
        counted = snapshot.totals
        streak, reporters = snapshot.consecutive_failures, snapshot.reporters
        totals = {
            "successes": counted.successes,
            "failures": counted.failures,
            "slow": counted.slow,
            "ignored": counted.ignored,
            "notPermitted": counted.not_permitted,
            "late": counted.late,
        }
    if not totals:
        return
    yield f"consecutiveFailures {streak}"
    yield ", ".join(f"{name} {whole(totals, name)}" for name in totals)
    yield f"trips {view.number('trips')}, reporters {reporters}"


def _probes(snapshot: Snapshot) -> Iterator[str]:
    probes = snapshot.probes
    if snapshot.state is State.HALF_OPEN:
        policy = snapshot.policy
        yield f"in flight {snapshot.probes_live} of halfOpenLimit {policy.half_open_limit}"
        yield f"succeeded {snapshot.probe_successes} of successThreshold {policy.success_threshold}"
    yield (
        f"of all: granted {probes.granted}, succeeded {probes.succeeded}, failed {probes.failed}, "
        f"ignored {probes.ignored}, expired {probes.expired}"
    )


def _conditions(view: View) -> Iterator[str]:
    for kind in ("Ready", "Healthy", "QuorumReachable"):
        status, reason, message = view.condition(kind)
        if status:
            yield f"{kind} {status}, {reason}: {message}" if message else f"{kind} {status}, {reason}"


def _transitions(entries: Iterable[transitions.Entry], glyphs: Glyphs) -> Iterator[Text]:
    for each in entries:
        before = each.before or transitions.NEW
        after = state_text(each.after, glyphs)
        yield Text.assemble(times.to_text(each.at_ms), "  ", before, " -> ", after, "  ", each.reason)
