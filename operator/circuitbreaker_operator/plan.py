"""Decides, from a resource and from what Redis says, what has to be written there. Pure, and safe to repeat.

Level-based: a plan compares what is with what should be, so the same plan comes out after a restart, and a plan with
nothing left to do is what `Ready=True` means.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from circuitbreaker_contract.durations import format_duration
from circuitbreaker_contract.errors import InvalidPolicyError
from circuitbreaker_contract.policy import LATEST_MS, Mode, Override, Policy
from circuitbreaker_contract.state import Resume, Snapshot, State
from circuitbreaker_operator import times
from circuitbreaker_operator.models import CircuitBreakerSpec, InvalidSpecError, parse_spec
from circuitbreaker_operator.resource import CATCH_UP, Resource
from circuitbreaker_operator.settings import Settings

ENVIRONMENT_OWNER: Final = "env"  # defined by a client without Kubernetes; a resource of that name takes it over
_TOKEN = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

INVALID_SPEC: Final = "InvalidSpec"
STORE_CONFLICT: Final = "StoreConflict"


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why the spec is not put in force: the reason of the condition Ready, and its message."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. `policy` is None only when rejected; `reset` is the token to reset with, "" for none.

    `remove`: the uid of an earlier resource of this name, whose breaker goes and none takes its place; "" for none.
    `stale`: Redis knows a newer generation than we have seen, so there is nothing to decide yet. `remarks` are for the
    log.
    """

    policy: Policy | None = None
    rejected: Rejected | None = None
    configure: bool = False
    resume: Resume | None = None
    reset: str = ""
    remove: str = ""
    stale: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def writes(self) -> bool:
        """There is something to write to Redis."""
        return self.configure or bool(self.reset or self.remove)

    @property
    def in_force(self) -> bool:
        """Redis holds exactly what the resource asks for."""
        return self.rejected is None and not (self.writes or self.stale)


def plan(resource: Resource, snapshot: Snapshot | None, *, owner: str, settings: Settings) -> Plan:
    """What the resource asks for, compared with the breaker in Redis (None: there is none)."""
    if snapshot is not None and snapshot.owner not in {owner, ENVIRONMENT_OWNER}:
        text = f"the breaker in Redis belongs to another installation (owner {snapshot.owner})"
        return Plan(rejected=Rejected(STORE_CONFLICT, f"{text}; set CB_KEY_PREFIX or use another Redis"))
    mine = own(resource, snapshot, owner=owner)
    token = reset_token(resource.reset)
    due_reset = token if mine is not None and token != mine.last_reset else ""
    try:
        policy = resolve(parse_spec(resource.spec), settings)
    except InvalidSpecError as error:
        left = snapshot.uid if snapshot is not None and mine is None and snapshot.owner == owner else ""
        return Plan(rejected=Rejected(INVALID_SPEC, _with_last(str(error), mine)), reset=due_reset, remove=left)
    if mine is None:
        resume, remarks = _resume(resource, fresh=snapshot is not None)
        recorded = resume.last_reset if resume is not None else ""
        again = token if token != recorded else ""
        return Plan(policy=policy, configure=True, resume=resume, reset=again, remarks=remarks)
    if mine.resource_generation > resource.generation:
        return Plan(policy=policy, stale=True, reset=due_reset)
    same = mine.policy == policy and mine.resource_generation == resource.generation
    same = same and mine.projection is settings.projection
    resume = _resume_when_behind(resource, mine)
    return Plan(policy=policy, configure=not same or resume is not None, resume=resume, reset=due_reset)


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


def resolve(spec: CircuitBreakerSpec, settings: Settings) -> Policy:
    """The policy that a spec asks for, with the operator's defaults for what it leaves out.

    Raises InvalidSpecError for what is wrong only together with a default, or only to the functions.
    """
    recovery_ms = settings.recovery_timeout_ms if spec.recovery_timeout_ms is None else spec.recovery_timeout_ms
    limit = settings.half_open_limit if spec.half_open_limit is None else spec.half_open_limit
    successes = settings.success_threshold if spec.success_threshold is None else spec.success_threshold
    backoff, window = spec.backoff, spec.window
    if backoff is not None and backoff.max_ms < recovery_ms:
        default = f"{format_duration(recovery_ms)} by default (CB_RECOVERY_TIMEOUT)"
        text = f"must not be shorter than recoveryTimeout, which is {default}"
        raise InvalidSpecError(f"spec.backoff.max: {text}; set spec.recoveryTimeout as well, or a longer max")
    try:
        return Policy(
            failure_threshold=settings.failure_threshold if spec.failure_threshold is None else spec.failure_threshold,
            recovery_timeout_ms=recovery_ms,
            half_open_limit=limit,
            success_threshold=limit if successes is None else successes,
            probe_timeout_ms=settings.probe_timeout_ms if spec.probe_timeout_ms is None else spec.probe_timeout_ms,
            window_calls=(window.calls or 0) if window else 0,
            window_ms=(window.duration_ms or 0) if window else 0,
            minimum_calls=spec.minimum_calls or 0,
            failure_rate_percent=spec.failure_rate_percent or 0,
            slow_call_duration_ms=spec.slow_call_duration_ms or 0,
            slow_call_rate_percent=spec.slow_call_rate_percent or 0,
            backoff_factor=backoff.factor if backoff else 0,
            backoff_max_ms=backoff.max_ms if backoff else 0,
            jitter_percent=(backoff.jitter_percent or 0) if backoff else None,
            min_reporters=spec.quorum.min_reporters if spec.quorum else 1,
            mode=Mode(spec.mode or Mode.ENFORCE),
            override=_override(spec),
        )
    except InvalidPolicyError as error:  # a rule that the schema does not know
        raise InvalidSpecError(f"spec: {error}") from error


def _override(spec: CircuitBreakerSpec) -> Override | None:
    wanted = spec.override
    if wanted is None:
        return None
    if wanted.until_ms is None:
        return Override(wanted.state, 0, wanted.reason)
    if wanted.until_ms > LATEST_MS:
        latest = times.to_seconds_text(LATEST_MS)
        raise InvalidSpecError(f"spec.override.until: must not be after {latest}; leave it out to hold without an end")
    return Override(wanted.state, max(1, wanted.until_ms), wanted.reason)  # 0 would be no end; 1970 is past as well


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


def _resume_when_behind(resource: Resource, mine: Snapshot) -> Resume | None:
    """After Redis went back in time: its breaker is lower in the order than the status tells.

    Clients that know the higher one may not take a lower, so the breaker begins again. The function compares once more
    with what is there at that moment, so a snapshot that is merely old does no harm.
    """
    resume, _ = _resume(resource, fresh=False)
    if resume is None or resume.order is None:
        return None
    return resume if resume.order > mine.order[:2] else None


def _resume_from(status: Mapping[str, Any]) -> Resume:
    state = State(status["state"])
    last_reset = status.get("lastReset") or ""
    if last_reset and not _TOKEN.fullmatch(last_reset):
        raise ValueError("lastReset")
    forced = status.get("forced") or False
    if forced is not False and (forced is not True or state is State.HALF_OPEN):
        raise ValueError("forced")
    # Held Open without an end there is no openUntil; the end of an override is the one in the spec anyway.
    timed = state is State.OPEN and not (forced and "openUntil" not in status)
    order = (_whole(status, "incarnation"), _whole(status, "stateGeneration"))
    if catch_up := status.get(CATCH_UP):  # Events may be ahead of the state, and their names are taken
        order = max(order, (_whole(catch_up, "incarnation"), _whole(catch_up, "stateGeneration")))
    return Resume(
        last_reset=last_reset,
        order=order,
        state=state,
        since_ms=times.to_ms(status["since"]),
        open_until_ms=times.to_ms(status["openUntil"]) if timed else None,
        attempt=_whole(status, "attempt") if status.get("attempt") else 0,
        forced=state if forced else None,
    )


def _whole(status: Mapping[str, Any], name: str) -> int:
    value = status[name]
    if type(value) is not int or not 0 < value < 9_000_000_000_000:
        raise ValueError(name)
    return value
