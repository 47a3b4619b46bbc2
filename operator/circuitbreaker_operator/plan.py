"""Decides, from a resource and from what Redis says, what has to be written there. Pure, and safe to repeat.

Level-based: a plan compares what is with what should be, so the same plan comes out after a restart, and a plan with
nothing left to do is what `Ready=True` means.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from circuitbreaker_contract.errors import InvalidPolicyError
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Resume, Snapshot, State
from circuitbreaker_operator import times
from circuitbreaker_operator.models import CircuitBreakerSpec, InvalidSpecError, parse_spec
from circuitbreaker_operator.resource import Resource
from circuitbreaker_operator.settings import Settings

ENVIRONMENT_OWNER: Final = "env"  # defined by a client without Kubernetes; a resource of that name takes it over
_TOKEN = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

INVALID_SPEC: Final = "InvalidSpec"
NOT_SUPPORTED: Final = "NotSupported"
STORE_CONFLICT: Final = "StoreConflict"


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why the spec is not put in force: the reason of the condition Ready, and its message."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. `policy` is None only when rejected; `reset` is the token to reset with, "" for none.

    `stale`: Redis knows a newer generation than we have seen, so there is nothing to decide yet. `remarks` are for the
    log.
    """

    policy: Policy | None = None
    rejected: Rejected | None = None
    configure: bool = False
    resume: Resume | None = None
    reset: str = ""
    stale: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def in_force(self) -> bool:
        """Redis holds exactly what the resource asks for."""
        return self.rejected is None and not (self.configure or self.reset or self.stale)


def plan(resource: Resource, snapshot: Snapshot | None, *, owner: str, settings: Settings) -> Plan:
    """What the resource asks for, compared with the breaker in Redis (None: there is none)."""
    if snapshot is not None and snapshot.owner not in {owner, ENVIRONMENT_OWNER}:
        text = f"the breaker in Redis belongs to another installation (owner {snapshot.owner})"
        return Plan(rejected=Rejected(STORE_CONFLICT, f"{text}; set CB_KEY_PREFIX or use another Redis"))
    mine = own(resource, snapshot, owner=owner)
    token = reset_token(resource.reset)
    due_reset = token if mine is not None and token != mine.last_reset else ""
    try:
        spec = parse_spec(resource.spec)
        if fields := unsupported(spec):
            text = f"this version of the operator does not support {', '.join(fields)}"
            return Plan(rejected=Rejected(NOT_SUPPORTED, _with_last(text, mine)), reset=due_reset)
        policy = settings.policy(
            failure_threshold=spec.failure_threshold,
            recovery_timeout_ms=spec.recovery_timeout_ms,
            half_open_limit=spec.half_open_limit,
            success_threshold=spec.success_threshold,
            probe_timeout_ms=spec.probe_timeout_ms,
        )
    except (InvalidSpecError, InvalidPolicyError) as error:
        return Plan(rejected=Rejected(INVALID_SPEC, _with_last(str(error), mine)), reset=due_reset)
    if mine is None:
        resume, remarks = _resume(resource, fresh=snapshot is not None)
        recorded = resume.last_reset if resume is not None else ""
        again = token if token != recorded else ""
        return Plan(policy=policy, configure=True, resume=resume, reset=again, remarks=remarks)
    if mine.resource_generation > resource.generation:
        return Plan(policy=policy, stale=True, reset=due_reset)
    same = mine.policy == policy and mine.resource_generation == resource.generation and mine.projects
    return Plan(policy=policy, configure=not same, reset=due_reset)


def own(resource: Resource, snapshot: Snapshot | None, *, owner: str) -> Snapshot | None:
    """The snapshot, if it is this resource's own breaker and not one that has that name by chance."""
    if snapshot is None or snapshot.owner != owner or snapshot.uid != resource.uid:
        return None
    return snapshot


def reset_token(annotation: str | None) -> str:
    """What a value of the annotation is called in Redis: itself where it has the form of an id, else a digest of it."""
    if not annotation:
        return ""
    if _TOKEN.fullmatch(annotation):
        return annotation
    return f"sha256-{hashlib.sha256(annotation.encode()).hexdigest()[:32]}"


def unsupported(spec: CircuitBreakerSpec) -> list[str]:
    """The fields of the spec that ask for rules which are not there yet. None of them may be silently ignored."""
    asked = {
        "failureThreshold 0": spec.failure_threshold == 0,
        "window": spec.window is not None,
        "minimumCalls": spec.minimum_calls is not None,
        "failureRatePercent": spec.failure_rate_percent is not None,
        "slowCallDuration": spec.slow_call_duration_ms is not None,
        "slowCallRatePercent": spec.slow_call_rate_percent is not None,
        "backoff": spec.backoff is not None,
        "quorum": spec.quorum is not None and spec.quorum.min_reporters > 1,
        "mode Observe": spec.mode == "Observe",
        "override": spec.override is not None,
    }
    return [name for name, is_asked in asked.items() if is_asked]


def _with_last(text: str, mine: Snapshot | None) -> str:
    return f"{text}; {'the last policy stays' if mine else 'no policy is'} in force"[:1024]


def _resume(resource: Resource, *, fresh: bool) -> tuple[Resume | None, tuple[str, ...]]:
    """What a breaker that is not in Redis starts from: the state that its status once showed.

    The status may have been written by anybody, so nothing in it is believed that does not look right; then the breaker
    starts Closed. A reset that was asked for before there was a breaker has nothing to reset: it counts as done.
    `fresh`: another resource had this name before, so nothing of that state is ours.
    """
    token = reset_token(resource.reset)
    status = resource.status
    if fresh or not status.get("incarnation"):
        return (Resume(last_reset=token) if token else None), ()
    try:
        return _resume_from(status), ()
    except (KeyError, TypeError, ValueError) as error:
        remark = f"status cannot be resumed from ({error!s}); the breaker starts Closed"
        return (Resume(last_reset=token) if token else None), (remark,)


def _resume_from(status: Mapping[str, Any]) -> Resume:
    state = State(status["state"])
    last_reset = status.get("lastReset") or ""
    if last_reset and not _TOKEN.fullmatch(last_reset):
        raise ValueError("lastReset")
    return Resume(
        last_reset=last_reset,
        order=(_whole(status, "incarnation"), _whole(status, "stateGeneration")),
        state=state,
        since_ms=times.to_ms(status["since"]),
        open_until_ms=times.to_ms(status["openUntil"]) if state is State.OPEN else None,
        attempt=_whole(status, "attempt") if status.get("attempt") else 0,
    )


def _whole(status: Mapping[str, Any], name: str) -> int:
    value = status[name]
    if type(value) is not int or not 0 < value < 9_000_000_000_000:
        raise ValueError(name)
    return value
