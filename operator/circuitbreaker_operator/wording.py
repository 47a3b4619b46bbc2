"""Words for people: why a breaker is in its state, in one sentence, and a policy as spec spells it. Pure.

No sentence holds a clock, so that what says the same is the same. What a person wrote (the reason of an override) is in
one line, bounded and without anything that is not printable, wherever it is shown.
"""

from collections.abc import Mapping
from typing import Any, Final, assert_never

from circuitbreaker_contract.durations import format_duration
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Reason, State, Transition
from circuitbreaker_operator import times

LONGEST_REASON: Final = 256  # characters of an override's reason, as in the CRD
_RESET: Final = "the annotation circuitbreaker.dev/reset"


def plain(text: str, longest: int) -> str:
    """The text in one line of printable characters, cut at `longest`."""
    cut = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return "".join(char if char.isprintable() else " " for char in cut)


def because(entry: Transition, policy: Policy) -> str:
    """Why a breaker went into its state, in one sentence.

    The policy may have been edited since: a threshold that the numbers did not reach cannot have been the one.
    """
    text = _why(entry, policy)
    if entry.forced is None or entry.reason is Reason.FORCED:
        return text
    return f"{text}; {held(entry.forced, entry.note)}"


def held(state: State, reason: str) -> str:
    """An override in force: `held Open: maintenance`."""
    return f"held {state.value}: {plain(reason, LONGEST_REASON)}" if reason else f"still held {state.value}"


def policy_map(policy: Policy, *, forced: bool) -> dict[str, Any]:
    """A policy in the words of spec; what is off is left out, an override that is not in force as well."""
    words: dict[str, Any] = {
        "failureThreshold": policy.failure_threshold,
        "recoveryTimeout": format_duration(policy.recovery_timeout_ms),
        "halfOpenLimit": policy.half_open_limit,
        "successThreshold": policy.success_threshold,
        "probeTimeout": format_duration(policy.probe_timeout_ms),
        "window": {"calls": policy.window_calls}
        if policy.window_calls
        else {"duration": format_duration(policy.window_ms)},
        "minimumCalls": policy.minimum_calls,
    }
    if policy.failure_rate_percent:
        words["failureRatePercent"] = policy.failure_rate_percent
    if policy.counts_slow:
        words["slowCallDuration"] = format_duration(policy.slow_call_duration_ms)
        words["slowCallRatePercent"] = policy.slow_call_rate_percent
    if policy.backoff_factor:
        words["backoff"] = {
            "factor": policy.backoff_factor,
            "max": format_duration(policy.backoff_max_ms),
            "jitterPercent": policy.jitter_percent or 0,
        }
    words["quorum"] = {"minReporters": policy.min_reporters}
    words["mode"] = policy.mode.value
    if forced and policy.override is not None:
        until_ms = policy.override.until_ms
        words["override"] = {
            "state": policy.override.state,
            **({"until": times.to_text(until_ms)} if until_ms else {}),
            "reason": plain(policy.override.reason, LONGEST_REASON),
        }
    return words


def spelled(words: Mapping[str, Any]) -> str:
    """`policy_map` in one line: `failureThreshold 5, window.calls 100, ...`."""
    return ", ".join(
        f"{name}.{inner} {plain(str(part), LONGEST_REASON)}" if inner else f"{name} {part}"
        for name, value in words.items()
        for inner, part in (value.items() if isinstance(value, Mapping) else [("", value)])
    )


def _why(entry: Transition, policy: Policy) -> str:
    calls = entry.window.calls
    match entry.reason:
        case Reason.CREATED:
            return "no outcome has changed it yet"
        case Reason.RESTORED:
            return "made again in Redis from this status"
        case Reason.RESET:
            return f"counts were cleared by {_RESET}" if entry.forced else f"closed by {_RESET}"
        case Reason.MODE_CHANGED:
            return f"spec.mode changed to {policy.mode.value}"
        case Reason.FORCED:
            return held(entry.state, entry.note or "no reason given")
        case Reason.OVERRIDE_EXPIRED:
            after = "counts start at zero" if entry.state is State.CLOSED else "probes are permitted"
            return f"the override is over; {after}"
        case Reason.CONSECUTIVE_FAILURES:
            text = f"{entry.consecutive_failures} consecutive failures"
            reached = 0 < policy.failure_threshold <= entry.consecutive_failures
            return f"{text} reached failureThreshold {policy.failure_threshold}" if reached else text
        case Reason.FAILURE_RATE:
            limit = ("failureRatePercent", policy.failure_rate_percent)
            return _share(entry.window.failure_rate_percent(1), calls, "failed", *limit)
        case Reason.SLOW_CALL_RATE:
            took = f"took longer than {format_duration(policy.slow_call_duration_ms)}"
            limit = ("slowCallRatePercent", policy.slow_call_rate_percent)
            return _share(
                entry.window.slow_call_rate_percent(1), calls, took if policy.counts_slow else "were slow", *limit
            )
        case Reason.RECOVERY_TIMEOUT_ELAPSED:
            return "recoveryTimeout is over; probes are permitted"
        case Reason.PROBES_SUCCEEDED:
            return f"{policy.success_threshold} successful probes reached successThreshold {policy.success_threshold}"
        case Reason.PROBE_FAILED:
            return "a probe failed or was slow" if policy.counts_slow else "a probe failed"
        case Reason.PROBES_LOST:
            return "probes were never answered within probeTimeout"
        case Reason.POLICY_APPLIED | Reason.DELETED | Reason.WOULD_HAVE_OPENED:
            return ""  # of messages only
        case Reason.UNKNOWN:
            return "for a reason that this version of the operator does not know"
        case unreachable:
            assert_never(unreachable)


def _share(rate_percent: float | None, calls: int, what: str, name: str, limit: int) -> str:
    if rate_percent is None:
        return f"too many calls {what}"
    text = f"{rate_percent:.1f} % of {calls} calls {what}"
    return f"{text}, which reached {name} {limit}" if 0 < limit <= rate_percent else text
