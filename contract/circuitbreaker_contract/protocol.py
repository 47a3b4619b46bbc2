"""Builds calls of the library's functions and reads their replies; never sends one.

An executor sends `call.command()` and hands the reply to `call.read`. Texts may arrive as bytes or str. What a reply
holds is untrusted: a reply that does not have the form of the contract raises ReplyError.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from circuitbreaker_contract.errors import CircuitBreakerError
from circuitbreaker_contract.policy import LATEST_MS, Mode, Policy
from circuitbreaker_contract.state import (
    NOT_PERMITTED_RUN,
    Configured,
    Decision,
    Order,
    Outcome,
    Permit,
    ProbeTotals,
    Projection,
    Reason,
    Resume,
    Shadow,
    Snapshot,
    Standing,
    State,
    Tick,
    Totals,
    Transition,
    WindowCounts,
)

T = TypeVar("T")

MAX_RUN = 1_000_000  # calls in one run of a batch
MAX_RUNS = 256  # runs in one batch
MAX_HISTORY = 256  # transitions kept for a breaker
_REASONS = frozenset(Reason)
_LARGEST = 2**53  # what a number of Lua counts exactly
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_LETTERS = frozenset([*(outcome.value for outcome in Outcome), NOT_PERMITTED_RUN])


class ReplyError(CircuitBreakerError):
    """A reply is not of the contract's form: another library answers under these names, or the keys are damaged."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call of a function: what to send, and how to read what comes back."""

    function: str
    keys: tuple[str, ...]
    args: tuple[str | int, ...]
    parse: Callable[[Any], T]
    writes: bool = True

    def command(self) -> tuple[str | int, ...]:
        """The whole Redis command: FCALL, or FCALL_RO where the function writes nothing."""
        return ("FCALL" if self.writes else "FCALL_RO", self.function, len(self.keys), *self.keys, *self.args)

    def read(self, reply: Any) -> T:
        """The value of a reply; raises ReplyError when it does not have the contract's form."""
        try:
            return self.parse(reply)
        except (TypeError, ValueError, KeyError, IndexError, RecursionError) as error:
            raise ReplyError(f"{self.function} replied outside the contract: {error}") from error


@dataclass(frozen=True, slots=True)
class Version:
    """What is loaded in Redis: the contract it speaks, which edition of the library, and the digest of its text."""

    contract: int
    library: int
    digest: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """The answer to `cb_configure`."""

    result: Configured
    standing: Standing


@dataclass(frozen=True, slots=True)
class Reset:
    """The answer to `cb_reset`; `done` is False when the token had been used already."""

    done: bool
    standing: Standing


def version() -> Call[Version]:
    return Call("cb_version", (), (), _version, writes=False)


def configure(
    key: str,
    *,
    owner: str,
    uid: str,
    generation: int,
    policy: Policy,
    project: Projection = Projection.SHARED,
    resume: Resume | None = None,
) -> Call[Configuration]:
    """Puts a policy in force. `project`: what the functions do about the shared names."""
    args: tuple[str | int, ...] = (owner, uid, generation, policy.to_json(), int(project))
    if resume is not None:
        args = (*args, _resume_json(resume))
    return Call(
        "cb_configure", (key,), args, lambda reply: Configuration(Configured(_text(reply[5])), _standing(reply))
    )


def acquire(key: str, *, client: str, lease: str) -> Call[Permit]:
    """Asks for a permit. Repeating it with the same lease repeats the answer."""
    return Call("cb_acquire", (key,), (client, lease), _permit)


def report(
    key: str, *, client: str, seq: int, order: tuple[int, int], batch: Iterable[tuple[str, int]]
) -> Call[Standing]:
    """Reports outcomes of one (incarnation, generation), in order, as runs of (letter, count).

    `seq` rises with each batch of this client and breaker; one that Redis has seen already is not counted again.
    """
    return Call("cb_report", (key,), (client, seq, *order, encode_batch(batch)), _standing)


def settle(key: str, *, client: str, lease: str, order: tuple[int, int], outcome: Outcome) -> Call[Standing]:
    """The outcome of a probe; counted once, however often it is sent."""
    return Call("cb_settle", (key,), (client, lease, *order, outcome.value), _standing)


def observe(key: str, *, history: int = 0) -> Call[Snapshot]:
    """The whole snapshot, with the newest `history` transitions (0 to 256). Writes nothing."""
    return Call("cb_observe", (key,), (history,), _snapshot, writes=False)


def tick(key: str) -> Call[Tick]:
    """Does what is due and says when to come back."""
    return Call("cb_tick", (key,), (), _tick)


def reset(key: str, *, uid: str, token: str) -> Call[Reset]:
    """Closes the breaker and forgets attempts, streak and window; once per token."""
    return Call("cb_reset", (key,), (uid, token), lambda reply: Reset(bool(int(reply[5])), _standing(reply)))


def delete(key: str, *, owner: str, uid: str) -> Call[bool]:
    """Removes the breaker of this uid; True when there was one."""
    return Call("cb_delete", (key,), (owner, uid), lambda reply: bool(int(reply[0])))


def encode_batch(runs: Iterable[tuple[str, int]]) -> str:
    """`[("S", 120), ("F", 1)]` -> `"S120 F1"`. Raises ValueError for what the functions would refuse."""
    words = []
    for letter, count in runs:
        if letter not in _LETTERS or not 1 <= count <= MAX_RUN:
            raise ValueError(f"run {letter}{count}: a letter of {' '.join(sorted(_LETTERS))}, then 1 to {MAX_RUN}")
        words.append(f"{letter}{count}")
    if not 1 <= len(words) <= MAX_RUNS:
        raise ValueError(f"a batch has 1 to {MAX_RUNS} runs, not {len(words)}")
    return " ".join(words)


def _resume_json(resume: Resume) -> str:
    fields: dict[str, Any] = {}
    if resume.last_reset:
        fields["lastReset"] = resume.last_reset
    if resume.order is not None:
        fields |= {"incarnation": resume.order[0], "generation": resume.order[1], "state": resume.state.value}
        fields |= {"since": resume.since_ms, "attempt": resume.attempt}
        if resume.open_until_ms is not None:
            fields["openUntil"] = resume.open_until_ms
        if resume.forced is not None:
            fields["forced"] = resume.forced.value
    return json.dumps(fields, separators=(",", ":"))


def _text(raw: Any) -> str:
    return raw.decode() if isinstance(raw, bytes) else str(raw)


def _version(reply: Sequence[Any]) -> Version:
    return Version(int(reply[0]), int(reply[1]), _text(reply[2]))


def _standing(reply: Sequence[Any]) -> Standing:
    return Standing(State(_text(reply[0])), Order(int(reply[1]), int(reply[2]), int(reply[3])), int(reply[4]))


def _permit(reply: Sequence[Any]) -> Permit:
    return Permit(Decision(_text(reply[5])), _standing(reply), int(reply[6]))


def _tick(reply: Sequence[Any]) -> Tick:
    due_in_ms = int(reply[5])
    return Tick(_standing(reply), None if due_in_ms < 0 else due_in_ms, int(reply[6]))


def _pairs(reply: Sequence[Any]) -> Mapping[str, Any]:
    return {_text(name): value for name, value in zip(reply[::2], reply[1::2], strict=True)}


def _reason(raw: Any) -> Reason:
    """A reason that a newer edition brought is no error of the reply."""
    text = _text(raw)
    return Reason(text) if text in _REASONS else Reason.UNKNOWN


def _whole(raw: Any, low: int = 0, high: int = _LARGEST) -> int:
    """A number as the functions write it. NaN and the infinities of a damaged hash arrive as -2^63."""
    number = int(raw)
    if not low <= number <= high:
        raise ValueError(f"{number} is not from {low} to {high}")
    return number


def _time(raw: Any) -> int:
    return _whole(raw, high=LATEST_MS)


def _instant(raw: Any) -> int | None:
    return _time(raw) or None


def _id(raw: Any) -> str:
    text = _text(raw)
    if not _ID.fullmatch(text):
        raise ValueError(f"{text[:64]!r} is not 1 to 64 of A-Z, a-z, 0-9 and '_.:-'")
    return text


def _history(entries: Sequence[Any]) -> Iterable[Transition]:
    """The entries that can be read: a damaged one is missed by whoever tells of the past, and by no rule."""
    for entry in entries:
        with suppress(TypeError, ValueError, KeyError):
            yield _transition(entry)


def _transition(reply: Sequence[Any]) -> Transition:
    raw = _pairs(reply)
    previous = _text(raw["previous"])
    return Transition(
        previous=State(previous) if previous else None,
        state=State(_text(raw["state"])),
        at_ms=_time(raw["at"]),
        reason=_reason(raw["reason"]),
        incarnation=_whole(raw["incarnation"], 1),
        generation=_whole(raw["generation"], 1),
        attempt=_whole(raw["attempt"]),
        consecutive_failures=_whole(raw["consecutiveFailures"]),
        open_until_ms=_instant(raw["openUntil"]),
        # Entries of the first edition have no more than what stands above.
        window=_window(raw) if "windowCalls" in raw else WindowCounts(),
        forced=_optional_state(raw.get("forced", "")),
        note=_text(raw.get("note", "")),
    )


def _window(raw: Mapping[str, Any]) -> WindowCounts:
    calls = _whole(raw["windowCalls"])
    return WindowCounts(calls, _whole(raw["windowFailures"], high=calls), _whole(raw["windowSlow"], high=calls))


def _optional_state(raw: Any) -> State | None:
    text = _text(raw)
    return State(text) if text else None


def _shadow(raw: Mapping[str, Any]) -> Shadow:
    return Shadow(
        state=State(_text(raw["shadowState"])),
        since_ms=_time(raw["shadowSince"]),
        reason=_text(raw["shadowReason"]),
        open_until_ms=_instant(raw["shadowOpenUntil"]),
        attempt=_whole(raw["shadowAttempt"]),
        probe_successes=_whole(raw["shadowProbeSuccesses"]),
        opened=_whole(raw["shadowOpened"]),
        not_permitted=_whole(raw["shadowNotPermitted"]),
    )


def _snapshot(reply: Sequence[Any]) -> Snapshot:
    raw = _pairs(reply)
    policy = Policy.stored(_text(raw["policy"]))
    history = tuple(_history(raw["history"]))
    return Snapshot(
        owner=_id(raw["owner"]),
        uid=_id(raw["uid"]),
        resource_generation=_whole(raw["resourceGeneration"]),
        policy=policy,
        projection=Projection(int(raw["project"])),
        projection_failed=bool(int(raw["projectFailed"])),
        order=Order(_whole(raw["incarnation"], 1), _whole(raw["generation"], 1), _whole(raw["revision"])),
        state=State(_text(raw["state"])),
        since_ms=_time(raw["since"]),
        reason=_reason(raw["reason"]),
        open_until_ms=_instant(raw["openUntil"]),
        retry_after_ms=_whole(raw["retryAfterMs"], -1),
        due=bool(int(raw["due"])),
        now_ms=_time(raw["now"]),
        attempt=_whole(raw["attempt"]),
        consecutive_failures=_whole(raw["consecutiveFailures"]),
        window=_window(raw),
        forced=_optional_state(raw["forced"]),
        probe_successes=_whole(raw["probeSuccesses"]),
        probes_lost=_whole(raw["probesLost"]),
        probes_live=_whole(raw["probesLive"]),
        reporters=_whole(raw["reporters"]),
        last_reset=_id(raw["lastReset"]) if raw["lastReset"] else "",
        totals=Totals(
            *(_whole(raw[name]) for name in ("successes", "failures", "slow", "ignored", "notPermitted", "late"))
        ),
        probes=ProbeTotals(
            *(_whole(raw[f"probes{name}"]) for name in ("Granted", "Succeeded", "Failed", "Ignored", "Expired"))
        ),
        state_ms={state: _whole(raw[f"ms{state.value}"]) for state in State},
        shadow=_shadow(raw) if policy.mode is Mode.OBSERVE else None,
        transition_totals={
            (State(_text(previous)), State(_text(state)), _reason(reason)): _whole(count)
            for previous, state, reason, count in raw["transitionTotals"]
        },
        history=history,
        history_damaged=len(raw["history"]) - len(history),
    )
