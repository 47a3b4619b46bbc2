"""What a person asks for, as a patch; what it will do, in sentences; whether it came into force. Pure.

An override is spec.override; a reset is a new value of the annotation circuitbreaker.dev/reset. See docs/operator.md,
"By hand".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from circuitbreaker_cli.breakers.explaining import again_for
from circuitbreaker_cli.breakers.view import View
from circuitbreaker_cli.words import moment, safe
from circuitbreaker_contract.durations import format_duration
from circuitbreaker_contract.state import State
from circuitbreaker_operator import times
from circuitbreaker_operator.resource import RESET_ANNOTATION
from circuitbreaker_operator.wording import held

_BELIEVED_MS: Final = 5_000  # clocks nearer to each other than this are one


@dataclass(frozen=True, slots=True)
class Change:
    """`patch`: a JSON merge patch of the resource. `will`: what it does, for whoever has to say yes to it."""

    title: str
    patch: Mapping[str, Any]
    will: tuple[str, ...]
    state: str = ""  # held afterwards; "" for a change that holds nothing
    reason: str = ""
    until: str = ""
    token: str = ""  # of a reset


def hold(view: View, state: State, reason: str, *, until_ms: int | None, now_ms: int) -> Change:
    """Holds it Open or Closed, in the place of whatever override there is."""
    until = None if until_ms is None else times.to_seconds_text(until_ms)
    override = {"state": state.value, "reason": reason, "until": until}  # null takes away the end of an earlier one
    refuses = state is State.OPEN
    will = [
        "every call is refused, by all processes" if refuses else "every call is permitted, whatever fails",
        "it holds until it is released" if until_ms is None else f"it ends by itself {moment(until_ms, now_ms)}",
        "then probes decide (HalfOpen)" if refuses else "then it stays Closed, with counts from zero",
    ]
    if view.override:
        will.append(f"it takes the place of an override {_override(view)}{_set_by(view)}")
    said = held(state, reason)
    return Change(said, {"spec": {"override": override}}, tuple(will), state.value, reason, until or "")


def release(view: View) -> Change:
    """Takes the override away."""
    after = (
        "probes decide: it becomes HalfOpen" if view.state == State.OPEN else "it stays Closed, with counts from zero"
    )
    if not view.forced:
        after = "nothing else: the override is not in force"
    will = [f"the override {_override(view)} is taken away", after]
    return Change("released", {"spec": {"override": None}}, tuple(will))


def reset(view: View, token: str) -> Change:
    """Closes it and forgets streak, window and attempts."""
    will = ["streak, window and attempts are forgotten; totals stay"]
    if view.forced:
        will.append(f"the override stays, so it stays {view.state}")
    elif view.state == State.CLOSED:
        will.append("it stays Closed")
    else:
        will.append(f"it becomes Closed at once, without a probe; else the next opening would last {again_for(view)}")
    patch = {"metadata": {"annotations": {RESET_ANNOTATION: token}}}
    return Change("reset", patch, tuple(will), token=token)


def obstacle(view: View) -> str:
    """Why a change would not come into force now; "" when nothing stands in its way."""
    status, reason, message = view.condition("Ready")
    if reason == "StoreUnavailable":
        return f"Redis is unreachable for the operator ({reason}: {message}); nobody would hear of this now"
    if status == "False":
        return f"the operator cannot put this spec in force ({reason}): {message}"
    if not view.state:
        return "no operator has put this breaker in force yet, so nothing would act on it"
    return ""


def in_force(change: Change, written: View, view: View) -> bool:
    """Whether the status tells that the change is done, and the resource is still as it was `written`."""
    if change.token:
        return view.text("lastReset") == change.token
    status, _, _ = view.condition("Ready")
    if moved(written, view):
        return False
    if status != "True" or view.number("observedGeneration") < view.generation:
        return False
    if not change.state:
        return not view.forced
    return view.forced and view.state == change.state


def overtaken(change: Change, written: View, seen: View) -> str:
    """What somebody wrote in the place of the change, which therefore does not come into force; "" for nothing."""
    if not change.token or seen.uid != written.uid:
        return moved(written, seen)
    token = seen.annotations.get(RESET_ANNOTATION)
    return "" if token == change.token else "another reset took its place"


def moved(agreed: View, seen: View) -> str:
    """What somebody else changed meanwhile, of that which was agreed to; "" for nothing."""
    if seen.uid != agreed.uid:
        return "it was made anew meanwhile"
    if seen.override == agreed.override:
        return ""
    if not seen.override:
        return "its override was taken away meanwhile"
    return f"its override is {_override(seen)} meanwhile{_set_by(seen)}"


def _override(view: View) -> str:
    return f"{safe(view.override.get('state', ''))} ({safe(view.override.get('reason', ''))})"


def _set_by(view: View) -> str:
    return f", set by {view.override_manager}" if view.override_manager else ""


def until_after(for_ms: int, now_ms: int) -> int:
    """When an override of this length ends that begins now: in whole seconds, and not before."""
    return -(-(now_ms + for_ms) // 1_000) * 1_000


def ahead_ms(now_ms: int, server_ms: int | None) -> int:
    """How far the clock of the API server is ahead of this machine's, where they are not the same."""
    return 0 if server_ms is None or abs(server_ms - now_ms) < _BELIEVED_MS else server_ms - now_ms


def skew(ahead_ms: int) -> str:
    """A sentence about a clock that differs; "" for one that does not."""
    if not ahead_ms:
        return ""
    way = "behind" if ahead_ms > 0 else "ahead of"
    apart = format_duration(abs(ahead_ms) // 1_000 * 1_000)
    return f"this machine's clock is {apart} {way} that of the API server, which is the one used"


def written_ms(view: View, manager: str) -> int | None:
    """When the API server says that this manager wrote, by its clock in whole seconds; None when it does not say."""
    found = []
    for each in (view.raw.get("metadata") or {}).get("managedFields") or []:
        if isinstance(each, Mapping) and each.get("manager") == manager:
            try:
                found.append(times.to_ms(each.get("time")))
            except ValueError:
                continue
    return max(found, default=None)
