"""Resources and snapshots for tests of the operator's pure parts: ordinary ones, to change by name."""

from dataclasses import replace
from typing import Any

from circuitbreaker_contract.policy import Mode, Override, Policy
from circuitbreaker_contract.state import (
    Order,
    ProbeTotals,
    Projection,
    Reason,
    Shadow,
    Snapshot,
    State,
    Totals,
    Transition,
    WindowCounts,
)
from circuitbreaker_operator.resource import RESET_ANNOTATION, Resource

OWNER = "cluster-1"
UID = "0a1b2c3d-0000-4000-8000-000000000001"
INCARNATION = 1_800_000_000_000
NOW = INCARNATION + 60_000
POLICY = Policy(
    failure_threshold=5,
    recovery_timeout_ms=30_000,
    half_open_limit=3,
    success_threshold=3,
    probe_timeout_ms=30_000,
)


def a_resource(
    *,
    spec: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    reset: str | None = None,
    **changed: Any,
) -> Resource:
    annotations = {} if reset is None else {RESET_ANNOTATION: reset}
    metadata = {"namespace": "shop", "name": "pay", "uid": UID, "generation": 1, "resourceVersion": "7"} | changed
    return Resource.of(
        {"metadata": metadata | {"annotations": annotations}, "spec": spec or {}, "status": status or {}}
    )


def a_transition(state: State, generation: int, reason: Reason, **changed: Any) -> Transition:
    entry = Transition(
        previous=State.CLOSED,
        state=state,
        at_ms=INCARNATION + generation * 1_000,
        reason=reason,
        incarnation=INCARNATION,
        generation=generation,
        attempt=0,
        consecutive_failures=0,
        open_until_ms=None,
    )
    return replace(entry, **changed)


CREATED = a_transition(State.CLOSED, 1, Reason.CREATED, previous=None)
OPENED = a_transition(
    State.OPEN,
    2,
    Reason.CONSECUTIVE_FAILURES,
    consecutive_failures=5,
    attempt=1,
    open_until_ms=INCARNATION + 32_000,
    window=WindowCounts(5, 5, 0),
)
FORCED = a_transition(State.OPEN, 2, Reason.FORCED, forced=State.OPEN, note="maintenance")
RELEASED = a_transition(State.HALF_OPEN, 3, Reason.OVERRIDE_EXPIRED, previous=State.OPEN)
HALF_OPENED = a_transition(State.HALF_OPEN, 3, Reason.RECOVERY_TIMEOUT_ELAPSED, previous=State.OPEN, attempt=1)


def a_snapshot(**changed: Any) -> Snapshot:
    """Closed, just created, nothing counted."""
    snapshot = Snapshot(
        owner=OWNER,
        uid=UID,
        resource_generation=1,
        policy=POLICY,
        projection=Projection.SHARED,
        projection_failed=False,
        order=Order(INCARNATION, 1, 1),
        state=State.CLOSED,
        since_ms=INCARNATION,
        reason=Reason.CREATED,
        open_until_ms=None,
        retry_after_ms=0,
        due=False,
        now_ms=NOW,
        attempt=0,
        consecutive_failures=0,
        window=WindowCounts(),
        forced=None,
        probe_successes=0,
        probes_lost=0,
        probes_live=0,
        reporters=0,
        last_reset="",
        totals=Totals(),
        probes=ProbeTotals(),
        state_ms=dict.fromkeys(State, 0),
        shadow=None,
        history=(CREATED,),
    )
    made = replace(snapshot, **changed)
    newest = max((each.generation for each in made.history), default=0)  # no history is ahead of its breaker
    return replace(made, order=made.order._replace(generation=max(newest, made.order.generation)))


def a_forced_snapshot(override: Override, **changed: Any) -> Snapshot:
    """Held by an override, since its second generation."""
    state = State(override.state)
    entry = replace(FORCED, state=state, forced=state, note=override.reason, open_until_ms=override.until_ms or None)
    held: dict[str, Any] = {
        "order": Order(INCARNATION, 2, 2),
        "policy": replace(POLICY, override=override),
        "state": state,
        "forced": state,
        "since_ms": entry.at_ms,
        "reason": Reason.FORCED,
        "open_until_ms": override.until_ms or None if state is State.OPEN else None,
        "retry_after_ms": 0 if state is State.CLOSED else -1,
        "history": (CREATED, entry),
    }
    return a_snapshot(**(held | changed))


def an_observing_snapshot(shadow: Shadow, **changed: Any) -> Snapshot:
    """In mode Observe, with that shadow."""
    return a_snapshot(**({"policy": replace(POLICY, mode=Mode.OBSERVE), "shadow": shadow} | changed))


def an_open_snapshot(**changed: Any) -> Snapshot:
    opened: dict[str, Any] = {
        "order": Order(INCARNATION, 2, 1),
        "state": State.OPEN,
        "since_ms": OPENED.at_ms,
        "reason": Reason.CONSECUTIVE_FAILURES,
        "open_until_ms": OPENED.open_until_ms,
        "attempt": 1,
        "consecutive_failures": 5,
        "window": WindowCounts(5, 5, 0),
        "totals": Totals(failures=5),
        "reporters": 1,
        "transition_totals": {(State.CLOSED, State.OPEN, Reason.CONSECUTIVE_FAILURES): 1},
        "history": (CREATED, OPENED),
    }
    return a_snapshot(**(opened | changed))
