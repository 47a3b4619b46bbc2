"""What has to hold once a fault is over. Values in, assertions out; the waiting is done by who calls."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

from circuitbreaker_contract import rules
from circuitbreaker_contract.breaker import Breaker, Definition
from circuitbreaker_contract.state import Outcome, Reason, Resume, Snapshot, Transition, WindowCounts
from circuitbreaker_operator import times

MOST_LINES = 4  # of one message: a fault begins once, and may begin again while a server comes up
_VARIES = re.compile(r"0x[0-9a-f]+|\b[0-9a-f-]{36}\b|\d+(\.\d+)?")
_STAMP = re.compile(r"^\S+Z ")


def told_by_the_rules(snapshot: Snapshot) -> None:
    """The Python twin, given what each entry of the history says that happened, comes to the same history and state.

    Only what the window held is left out: an entry does not say in which order its calls came.
    """
    first, *later = snapshot.history
    twin = _begun(snapshot, first)
    for number, entry in enumerate(later):
        twin = _moved(twin, entry, f"twin-{number}")
        assert _plain(twin.history[-1]) == _plain(entry)
    assert _plain(twin.history[0]) == _plain(first)
    assert (twin.state, twin.generation, twin.attempt) == (snapshot.state, snapshot.order.generation, snapshot.attempt)
    assert (twin.open_until_ms or None) == snapshot.open_until_ms
    if first.reason is Reason.CREATED:
        assert dict(twin.transition_totals) == dict(snapshot.transition_totals)


def _begun(snapshot: Snapshot, first: Transition) -> Breaker:
    resume = None
    if first.reason is Reason.RESTORED:
        order = (first.incarnation - 1, first.generation - 1)
        resume = Resume("", order, first.state, snapshot.since_ms, first.open_until_ms, first.attempt)
    wanted = Definition(
        snapshot.owner, snapshot.uid, snapshot.resource_generation, snapshot.policy, snapshot.projection, resume
    )
    return rules.configured(None, first.at_ms, wanted)[0]


def _moved(twin: Breaker, entry: Transition, client: str) -> Breaker:
    policy, now_ms, order = twin.policy, entry.at_ms, twin.order[:2]

    def probed(breaker: Breaker, outcome: Outcome, times: int) -> Breaker:
        for number in range(times):
            lease = f"{client}-{number}"
            breaker, _ = rules.acquired(breaker, now_ms, client=client, lease=lease)
            breaker = rules.settled(breaker, now_ms, client=client, lease=lease, order=order, outcome=outcome)
        return breaker

    match entry.reason:
        case Reason.CONSECUTIVE_FAILURES:
            runs = (("F", entry.consecutive_failures),)
            return rules.reported(twin, now_ms, client=client, seq=1, order=order, runs=runs)
        case Reason.RECOVERY_TIMEOUT_ELAPSED:
            return rules.ticked(twin, now_ms)[0]
        case Reason.PROBES_SUCCEEDED:
            return probed(twin, Outcome.SUCCESS, policy.success_threshold)
        case Reason.PROBE_FAILED:
            return probed(twin, Outcome.FAILURE, 1)
        case Reason.PROBES_LOST:
            for number in range(policy.half_open_limit):
                asked_ms = max(twin.since_ms, now_ms - policy.probe_timeout_ms)
                twin, _ = rules.acquired(twin, asked_ms, client=client, lease=f"{client}-{number}")
            return rules.ticked(twin, now_ms)[0]
    raise AssertionError(f"nothing in this test makes a breaker {entry}")


def _plain(entry: Transition) -> Transition:
    return replace(entry, window=WindowCounts())


def without_gaps(snapshot: Snapshot) -> None:
    """Each generation of the incarnation is there once, in order, up to the present one; instants do not go back."""
    found = [entry.generation for entry in snapshot.history]
    assert found == [*range(found[0], snapshot.order.generation + 1)]
    assert {entry.incarnation for entry in snapshot.history} == {snapshot.order.incarnation}
    instants = [entry.at_ms for entry in snapshot.history]
    assert instants == sorted(instants)
    for before, after in pairwise(snapshot.history):
        assert after.previous is before.state


def difference(status: dict[str, Any], snapshot: Snapshot) -> dict[str, tuple[Any, Any]]:
    """Where a status does not say what Redis does: (status, Redis) by field. Counters may lag and are left out."""
    shown = {
        "state": status.get("state"),
        "order": (status.get("incarnation"), status.get("stateGeneration")),
        "reason": status.get("reason"),
        "openUntil": times.to_ms(status["openUntil"]) if "openUntil" in status else None,
        "attempt": status.get("attempt") or 0,
        "transitions": [
            (each.get("from") or None, each["to"], each["reason"], each["stateGeneration"])
            for each in status.get("transitions", [])
        ],
    }
    # An emptied Redis has no more than what came after; the status still tells of what was before.
    count = min(len(shown["transitions"]), len(snapshot.history))
    shown["transitions"] = shown["transitions"][len(shown["transitions"]) - count :]
    known = {
        "state": snapshot.state.value,
        "order": (snapshot.order.incarnation, snapshot.order.generation),
        "reason": snapshot.reason.value,
        "openUntil": snapshot.open_until_ms,
        "attempt": snapshot.attempt,
        "transitions": [
            (each.previous.value if each.previous else None, each.state.value, each.reason.value, each.generation)
            for each in snapshot.history[len(snapshot.history) - count :]
        ],
    }
    return {name: (shown[name], known[name]) for name in shown if shown[name] != known[name]}


def counted_once(reported: int, snapshot: Snapshot) -> None:
    """What clients were told was counted has been counted, once, for a breaker that never refused."""
    totals = snapshot.totals
    assert totals.successes + totals.failures + totals.ignored + totals.late == reported, totals


def lines_by_message(lines: Iterable[str]) -> Counter[str]:
    """How often each message came, with its numbers and the time taken out. Told Events are news, not messages."""
    return Counter(_VARIES.sub("N", _STAMP.sub("", line)) for line in lines if " reason=" not in line)


def said_once(log: str) -> None:
    """No message comes again and again."""
    often = {text: times for text, times in lines_by_message(log.splitlines()).items() if times > MOST_LINES}
    assert not often, often
