"""Events of Kubernetes for what happened to a breaker since the status was last written. Pure.

Names are made from what they tell, so that saying it twice answers 409 and is said once. They are posted before the
status that records the generation: a crash between the two repeats them, and loses none. (PolicyApplied of a breaker
that was just made may come after its first status; deferred.py sees that it comes.)

A long story is told in pages, and after each one the status records how far it went (`status.catchUp`). Whoever comes
next begins there and tells the first page one by one, however much has happened since: of what may have been told
already nothing is ever counted as skipped. What is skipped is recorded before it is said, so that it is counted once.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from circuitbreaker_contract.durations import GATEWAY_FORM, LONGEST_MS, format_duration
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import Reason, Snapshot, State, Transition
from circuitbreaker_operator import times
from circuitbreaker_operator.plan import Plan, own
from circuitbreaker_operator.resource import API_VERSION, CATCH_UP, KIND, Resource
from circuitbreaker_operator.status import last_entry
from circuitbreaker_operator.wording import LONGEST_REASON, because, plain, policy_map, spelled

LIMIT: Final = 32  # transitions told one by one: the oldest page and the newest; the others are one Event with a count
PAGE: Final = 8  # what one leader may tell without a record of it; a breaker that works makes less at a time
COMPONENT: Final = "circuitbreaker-operator"
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Event:
    """One Event to be. `at_ms` is Redis' time of what it tells."""

    key: BreakerKey
    uid: str
    name: str
    kind: Literal["Normal", "Warning"]
    reason: str
    message: str
    at_ms: int

    def body(self, *, instance: str) -> dict[str, Any]:
        """The object for the API; `instance` is the pod or host that reports."""
        at = times.to_seconds_text(self.at_ms)
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": self.name, "namespace": self.key.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": self.key.namespace,
                "name": self.key.name,
                "uid": self.uid,
            },
            "type": self.kind,
            "reason": self.reason,
            "message": plain(self.message, 1024),
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": instance,
        }


@dataclass(frozen=True, slots=True)
class Step:
    """Events to post, and then what to write: `catch_up` into the status as it is, or with None the new status."""

    events: tuple[Event, ...]
    catch_up: Mapping[str, int] | None


@dataclass(frozen=True, slots=True)
class _Page:
    """Transitions to tell once all up to `after` are told, the last `skipped` of those by their number only."""

    after: tuple[int, int]
    skipped: int
    transitions: Sequence[Transition]

    def record(self) -> dict[str, int]:
        said = {"incarnation": self.after[0], "stateGeneration": self.after[1]}
        return said | ({"skipped": self.skipped} if self.skipped else {})


def shown(status: Mapping[str, Any]) -> tuple[int, int]:
    """(incarnation, generation) of the state that the status shows; zeros for none."""
    return _pair(status) or (0, 0)


def handled(status: Mapping[str, Any]) -> tuple[int, int]:
    """(incarnation, generation) of the last transition that was told, as far as the status knows; zeros for none."""
    return max(shown(status), _pair(_catch_up(status)) or (0, 0))


def _catch_up(status: Mapping[str, Any]) -> Mapping[str, Any]:
    found = status.get(CATCH_UP)
    return found if isinstance(found, Mapping) else {}


def _pair(record: Mapping[str, Any]) -> tuple[int, int] | None:
    pair = record.get("incarnation"), record.get("stateGeneration")
    return pair if isinstance(pair[0], int) and isinstance(pair[1], int) else None  # type: ignore[return-value]


def reaches_back(snapshot: Snapshot, status: Mapping[str, Any]) -> bool:
    """Whether the snapshot's history goes back to the last transition that was handled, or to the very first."""
    incarnation, generation = handled(status)
    if not snapshot.history:
        return snapshot.order.generation <= generation and snapshot.order.incarnation == incarnation
    oldest = snapshot.history[0]
    if oldest.previous is None:
        return True
    return oldest.incarnation == incarnation and oldest.generation <= generation + 1


def unhandled(snapshot: Snapshot, status: Mapping[str, Any]) -> list[Transition]:
    """The transitions in the history that the status does not tell of, oldest first.

    One that is past where the breaker stands never happened, and would be told again with each status.
    """
    return _since(handled(status), snapshot)


def _since(last: tuple[int, int], snapshot: Snapshot) -> list[Transition]:
    newest = snapshot.order[:2]
    return [each for each in snapshot.history if last < (each.incarnation, each.generation) <= newest]


def steps(
    resource: Resource,
    snapshot: Snapshot | None,
    decided: Plan,
    *,
    owner: str,
    previous: Mapping[str, Any],
    now_ms: int,
) -> list[Step]:
    """What to post and to write, in this order, until a status that follows from the same arguments is written."""
    mine = own(resource, snapshot, owner=owner)
    pages = _pages(mine, previous) if mine is not None else [_Page((0, 0), 0, ())]
    found: list[list[Event]] = [[] for _ in pages]
    if mine is not None:
        edit = _of_edit(resource, mine, previous) if decided.in_force else []
        told = [each for page in pages for each in page.transitions]
        last = {entry.reason: entry for entry in told}
        for page, events in zip(pages, found, strict=True):
            if page.skipped:
                events.append(_skipped(resource, mine, page))
            for entry in page.transitions:
                event = _of_transition(resource, mine, entry, newest=last[entry.reason] is entry)
                if event is not None:
                    if _is_of_an_edit(entry, mine):
                        # An edit is told before what it did: a mode or an override is a transition of the same moment.
                        events += [replace(each, at_ms=entry.at_ms) for each in edit]
                        edit = []
                    events.append(event)
        found[-1] += edit
        found[-1] += _of_shadow(resource, mine, previous)
    if decided.rejected is not None and not _said(previous, resource, decided.rejected.reason):
        reason = decided.rejected.reason
        name = f"{resource.key.name}.{resource.uid[:8]}.g{resource.generation}.{reason.lower()}"
        text = f"{reason}: {decided.rejected.message}"
        found[-1].append(Event(resource.key, resource.uid, name, "Warning", "PolicyRejected", text, now_ms))
    records = [*(page.record() for page in pages[1:]), None]
    return [Step(tuple(events), record) for events, record in zip(found, records, strict=True)]


def of_creation(
    resource: Resource, snapshot: Snapshot, previous: Mapping[str, Any], steps: Sequence[Step]
) -> Event | None:
    """PolicyApplied of a breaker that shows for the first time; None when there is more, or something else, to tell."""
    told = [event for step in steps for event in step.events]
    if len(told) != 1 or len(steps) != 1 or told[0].reason != "PolicyApplied":
        return None
    made = snapshot.reason is Reason.CREATED and snapshot.order.revision == 1 and resource.generation == 1
    return told[0] if made and "policy" not in previous else None


def of_shown_creation(resource: Resource, *, since: int) -> Event | None:
    """The same Event, of a breaker whose status shows it as it was made; None of one made before that incarnation.

    Of a breaker that shows more than its creation it was told before that.
    """
    status = resource.status
    incarnation, _ = shown(status)
    policy = status.get("policy")
    made = status.get("reason") == Reason.CREATED.value and status.get("observedGeneration") == 1
    if incarnation < since or not made or not isinstance(policy, Mapping):
        return None
    try:
        at_ms = times.to_ms(status.get("since"))
    except ValueError:  # not a status of ours
        return None
    return _applied(resource, f"{_stem(resource, incarnation)}.r1", policy, at_ms)


def base36(number: int) -> str:
    """The number in base 36, in lower case as names of objects are; 0 for one below."""
    digits = ""
    while number > 0:
        number, rest = divmod(number, 36)
        digits = _DIGITS[rest] + digits
    return digits or "0"


def _pages(mine: Snapshot, previous: Mapping[str, Any]) -> list[_Page]:
    """At least one. The first holds all that may have been told and is not recorded, unless the history has lost it."""
    last, new = handled(previous), unhandled(mine, previous)
    lost = 0
    if new and not reaches_back(mine, previous):
        lost = max(0, mine.history[0].generation - last[1] - 1)
    oldest = [] if lost else new[:PAGE]
    rest = new[len(oldest) :]
    newest = rest[-(LIMIT - len(oldest)) :]
    skipped = lost + len(rest) - len(newest)
    recorded = _catch_up(previous).get("skipped")
    pages = [_Page(last, recorded if type(recorded) is int and last != shown(previous) else 0, oldest)]
    for at in range(0, len(newest), PAGE):
        before = (newest[at].incarnation, newest[at].generation - 1)
        pages.append(_Page(before, 0 if at else skipped, newest[at : at + PAGE]))
    return pages


def _skipped(resource: Resource, mine: Snapshot, page: _Page) -> Event:
    """One Event for the transitions that are past the history, or too many to tell."""
    incarnation, generation = page.after
    name = f"{_stem(resource, incarnation)}.{generation}.skipped"
    text = f"{page.skipped} earlier transitions happened while no operator watched, and are not told one by one"
    at_ms = page.transitions[0].at_ms if page.transitions else mine.now_ms
    return Event(resource.key, resource.uid, name, "Normal", "TransitionsSkipped", text, at_ms)


def _of_transition(resource: Resource, mine: Snapshot, entry: Transition, *, newest: bool) -> Event | None:
    """`newest`: of its reason, so that what the resource says now belongs to it."""
    if entry.reason is Reason.CREATED:
        return None  # PolicyApplied says it
    kind: Literal["Normal", "Warning"] = "Normal"
    text = because(entry, mine.policy)
    match entry.reason, entry.state:
        case Reason.RESTORED, _:
            reason, text = "CircuitRestored", f"made again in Redis as {entry.state.value}, from the status"
        case Reason.RESET, _:
            reason = "CircuitReset"
        case Reason.MODE_CHANGED, _:
            reason = "ModeChanged"
            text = text if newest else "spec.mode changed"
        case Reason.OVERRIDE_EXPIRED, _:
            reason = "OverrideExpired"
        case Reason.FORCED, _:
            kind, reason = "Warning" if entry.state is State.OPEN else "Normal", "CircuitForced"
            text = _forced(resource, mine, entry) if newest else text
        case _, State.OPEN:
            kind, reason = "Warning", "CircuitOpened"
            if entry.open_until_ms is not None:
                length_ms = min(max(0, entry.open_until_ms - entry.at_ms), LONGEST_MS)
                text = f"{text}; calls are not permitted for {format_duration(length_ms)}"
        case _, State.HALF_OPEN:
            reason = "CircuitHalfOpen"
        case _:
            reason = "CircuitClosed"
    name = f"{_stem(resource, entry.incarnation)}.{entry.generation}"
    return Event(resource.key, resource.uid, name, kind, reason, text, entry.at_ms)


def _forced(resource: Resource, mine: Snapshot, entry: Transition) -> str:
    """What a person wrote comes last, so that it cannot pass for a part of ours."""
    override = mine.policy.override
    until_ms = override.until_ms if override is not None else 0
    text = f"held {entry.state.value}" + (f" until {times.to_seconds_text(until_ms)}" if until_ms else "")
    if resource.override_manager:
        text = f"{text}, set by {resource.override_manager}"
    return f"{text}: {plain(entry.note, LONGEST_REASON)}"


def _is_of_an_edit(entry: Transition, mine: Snapshot) -> bool:
    removed = entry.reason is Reason.OVERRIDE_EXPIRED and mine.policy.override is None
    return removed or entry.reason in {Reason.MODE_CHANGED, Reason.FORCED}


def _of_edit(resource: Resource, mine: Snapshot, previous: Mapping[str, Any]) -> list[Event]:
    words = policy_map(mine.policy, forced=mine.forced is not None)
    before = previous.get("policy") or {}
    stem = f"{_stem(resource, mine.order.incarnation)}.r{mine.order.revision}"
    found = []
    if _is_worth_telling(before, words):
        found.append(_applied(resource, stem, words, mine.now_ms))
    if shown(previous)[0] == mine.order.incarnation and empties_window(before, words):
        was, now = (spelled({"window": each["window"]}) for each in (before, words))
        text = f"the window starts empty: it was {was} and is {now}"
        found.append(Event(resource.key, resource.uid, f"{stem}.window", "Normal", "WindowReset", text, mine.now_ms))
    return found


def _applied(resource: Resource, name: str, words: Mapping[str, Any], at_ms: int) -> Event:
    return Event(resource.key, resource.uid, name, "Normal", "PolicyApplied", spelled(words), at_ms)


def _is_worth_telling(before: Mapping[str, Any], words: Mapping[str, Any]) -> bool:
    """Whether PolicyApplied says something that CircuitForced and OverrideExpired do not."""
    rules = [{name: value for name, value in each.items() if name != "override"} for each in (before, words)]
    if rules[0] != rules[1]:
        return True
    old, new = before.get("override"), words.get("override")
    return bool(old and new and old.get("state") == new["state"] and old != new)


def empties_window(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether the edit from one policy to the other, in the words of spec, made the window start empty.

    Another number of calls keeps the newest ones; another duration, or another kind of window, keeps nothing.
    """
    old, new = before.get("window") or {}, after.get("window") or {}
    return _is_a_window(old) and old != new and not ("calls" in old and "calls" in new)


def _is_a_window(words: Mapping[str, Any]) -> bool:
    """Whether this is how we write a window: anybody may have written the status, and it is going to be told."""
    match dict(words):
        case {"calls": int(), **rest} if not rest:
            return True
        case {"duration": str(text), **rest} if not rest:
            return re.fullmatch(GATEWAY_FORM, text) is not None
        case _:
            return False


def _of_shadow(resource: Resource, mine: Snapshot, previous: Mapping[str, Any]) -> list[Event]:
    """One Event for the times that it would have opened since the status was written."""
    shadow = mine.shadow
    if shadow is None:
        return []
    afresh = shown(previous)[0] != mine.order.incarnation or any(
        entry.reason in {Reason.RESET, Reason.MODE_CHANGED} for entry in _since(shown(previous), mine)
    )
    known = (previous.get("shadow") or {}).get("wouldHaveOpened")
    number = shadow.opened - (known if type(known) is int and not afresh else 0)
    if number <= 0:
        return []
    text = "would have opened" if number == 1 else f"would have opened {number} times"
    at_ms = mine.now_ms
    if shadow.state is State.OPEN and shadow.reason in set(Reason):
        at_ms = shadow.since_ms
        # The window and the streak stay as they were when it would have opened.
        entry = replace(
            last_entry(mine),
            reason=Reason(shadow.reason),
            consecutive_failures=mine.consecutive_failures,
            window=mine.window,
            forced=None,
        )
        text = f"{text}{': ' if number == 1 else ', the last time because '}{because(entry, mine.policy)}"
    # The count starts over with a reset, and a reset raises the generation: without it a name could come twice.
    name = f"{_stem(resource, mine.order.incarnation)}.{mine.order.generation}.w{shadow.opened}"
    return [Event(resource.key, resource.uid, name, "Normal", "WouldHaveOpened", text, at_ms)]


def _stem(resource: Resource, incarnation: int) -> str:
    return f"{resource.key.name}.{resource.uid[:8]}.{base36(incarnation)}"


def _said(previous: Mapping[str, Any], resource: Resource, reason: str) -> bool:
    for condition in previous.get("conditions") or []:
        if condition.get("type") == "Ready":
            same = condition.get("reason") == reason and condition.get("observedGeneration") == resource.generation
            return bool(same and condition.get("status") == "False")
    return False
