"""Why a breaker is in its state, and what comes next: sentences, from its status and the time. Pure.

The numbers are the status's, which may lag by CB_STATUS_REFRESH while Closed; a transition shows at once, so those of
an opening are exact.
"""

from collections.abc import Iterator
from typing import Any

from circuitbreaker_cli.breakers.view import View, duration_ms, instant, part, whole
from circuitbreaker_cli.words import length, moment, percent, safe
from circuitbreaker_contract.durations import format_duration
from circuitbreaker_contract.state import State


def why(view: View, now_ms: int) -> list[str]:
    """Why it is in its state: the rule with its numbers, or the person and the reason."""
    if not view.state:
        return list(_not_in_force(view)) or ["no operator has written a status for it yet"]
    sentences = [f"{view.state}: {view.text('message') or view.reason}"]
    if view.since_ms is not None:
        sentences.append(f"since {moment(view.since_ms, now_ms)}")
    if view.forced and view.override_manager:
        sentences.append(f"spec.override was last set by {view.override_manager}")
    if view.state == State.OPEN and not view.forced and view.number("attempt") > 1:
        sentences.append(f"it is opening {view.number('attempt')} in a row without closing between")
    sentences += _not_in_force(view)
    return sentences


def next_steps(view: View, now_ms: int) -> list[str]:
    """What changes the state from here, and when."""
    if not view.state:
        if any(_not_in_force(view)):
            return ["it comes into force once that is mended"]
        return ["an operator that serves this namespace puts it in force; `kubectl breaker doctor` looks for one"]
    if view.forced:
        return list(_after_override(view, now_ms))
    match view.state:
        case State.OPEN:
            return [*_end_of_open(view, now_ms), *_probing(view)]
        case State.HALF_OPEN:
            return list(_probing(view))
        case _:
            return list(_what_opens(view))


def _not_in_force(view: View) -> Iterator[str]:
    status, reason, message = view.condition("Ready")
    if status and status != "True":
        yield f"the spec as it is now is not in force ({reason}): {message}"
    elif not view.state:
        return
    elif view.number("observedGeneration") < view.generation:
        numbers = f"generation {view.generation}, status of {view.number('observedGeneration')}"
        yield f"its last edit is not in force yet ({numbers}); `kubectl breaker doctor` looks why"
    elif view.override and not view.forced:
        yield "spec.override has no effect: its until is past"


def _after_override(view: View, now_ms: int) -> Iterator[str]:
    until_ms = instant(part(view.policy, "override"), "until")
    then = "probes are permitted (HalfOpen)" if view.state == State.OPEN else "counts start at zero (Closed)"
    if until_ms is None:
        yield f"the override has no end; when it is taken away, {then}"
    else:
        yield f"the override ends {moment(until_ms, now_ms)}; then {then}"
    yield f"`kubectl breaker release -n {view.namespace} {view.name}` ends it now"
    if view.state == State.OPEN:
        yield from _probing(view)


def _end_of_open(view: View, now_ms: int) -> Iterator[str]:
    until_ms = view.open_until_ms
    if until_ms is None:
        yield "Open has no end of its own"
    elif until_ms > now_ms:
        yield f"probes are permitted {moment(until_ms, now_ms)}: then it is HalfOpen"
    else:
        yield f"recoveryTimeout is over ({moment(until_ms, now_ms)}): the next call is a probe"


def _probing(view: View) -> Iterator[str]:
    policy = view.policy
    needed, limit = whole(policy, "successThreshold"), whole(policy, "halfOpenLimit")
    slow = " or slow" if "slowCallRatePercent" in policy else ""
    yield f"{needed} successful probes close it (successThreshold), at most {limit} in flight at once (halfOpenLimit)"
    yield f"the first probe that fails{slow} opens it again for {again_for(view)}"


def again_for(view: View) -> str:
    """How long the next opening would last."""
    shortest = view.policy_ms("recoveryTimeout")
    backoff = part(view.policy, "backoff")
    if not backoff:
        return f"{length_of(shortest)} (recoveryTimeout)"
    # The n-th opening in a row: recoveryTimeout x factor^(n-1), at most max; `attempt` of them have been.
    exponent = min(view.number("attempt"), 63)
    longest = min(duration_ms(backoff.get("max")), shortest * whole(backoff, "factor") ** exponent)
    jitter = whole(backoff, "jitterPercent")
    less = f", less up to {jitter} %" if jitter else ""
    return f"{length_of(longest)} (backoff{less})"


def _what_opens(view: View) -> Iterator[str]:
    policy = view.policy
    if view.observes:
        yield "mode Observe: nothing opens it; status.shadow tells what Enforce would have done"
        yield from _shadow(view)
    opens = "would open it" if view.observes else "open it"
    threshold = whole(policy, "failureThreshold")
    if threshold:
        count = view.number("consecutiveFailures")
        yield f"{threshold} consecutive failures {opens} (failureThreshold); {count} now"
    yield from _rate(view, "failureRatePercent", "failed calls", opens)
    slow = f"calls slower than {safe(policy.get('slowCallDuration', ''), 32)}"
    yield from _rate(view, "slowCallRatePercent", slow, opens)
    needed = whole(part(policy, "quorum"), "minReporters")
    if needed > 1:
        yield (
            f"only when {needed} client processes have seen failures (quorum.minReporters); "
            f"{view.number('reporters')} reported lately"
        )


def _rate(view: View, name: str, what: str, opens: str) -> Iterator[str]:
    limit = whole(view.policy, name)
    if not limit:
        return
    calls, minimum = whole(part(view.status, "window"), "calls"), whole(view.policy, "minimumCalls")
    rate = view.rate(name)
    now = f"{percent(rate)} of {calls} calls now"
    if rate is None:
        now = f"unknown now, with {calls} calls in the window of minimumCalls {minimum}"
    yield f"{limit} % of {what} in {window(view)} {opens} ({name}); {now}"


def _shadow(view: View) -> Iterator[str]:
    shadow = part(view.status, "shadow")
    if shadow:
        opened, refused = whole(shadow, "wouldHaveOpened"), whole(shadow, "notPermitted")
        yield f"would have opened {opened} times and refused {refused} calls; would be {safe(shadow.get('state'))}"


def window(view: View) -> str:
    """The window in words: `the last 100 calls`, or `60s`."""
    words: Any = part(view.policy, "window")
    return f"the last {whole(words, 'calls')} calls" if "calls" in words else safe(words.get("duration", ""), 32)


def length_of(ms: int) -> str:
    return length(ms) if ms >= 1_000 else format_duration(max(0, ms))
