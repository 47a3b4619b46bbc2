"""Plays a scenario on a store, step by step, and compares what is answered, said and stored with what is written."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from circuitbreaker_conformance.scenarios import ACTIONS, Scenario, Step
from circuitbreaker_conformance.store import Store
from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import CircuitBreakerError, ContractError, UnknownBreakerError
from circuitbreaker_contract.keys import BreakerKey, Keys
from circuitbreaker_contract.state import Shadow, Snapshot, Transition

BASE_MS: Final = 1_800_000_000_000  # the virtual clock's zero
BREAKER: Final = BreakerKey("demo", "payments")
KEY: Final = Keys().breaker(BREAKER)
DEFAULTS: Final[Mapping[str, Any]] = {
    "failureThreshold": 3,
    "recoveryTimeoutMs": 10_000,
    "halfOpenLimit": 2,
    "successThreshold": 2,
    "probeTimeoutMs": 5_000,
}
# A breaker just made at the clock's zero: what the first state of a breaker is compared with.
BLANK: Final[Mapping[str, Any]] = {
    "state": "Closed",
    "reason": "Created",
    "since": 0,
    "openUntil": None,
    "due": False,
    "forced": "",
    "incarnation": 0,
    "generation": 1,
    "revision": 1,
    "attempt": 0,
    "consecutiveFailures": 0,
    "windowCalls": 0,
    "windowFailures": 0,
    "windowSlow": 0,
    "probeSuccesses": 0,
    "probesLost": 0,
    "probesLive": 0,
    "reporters": 0,
    "lastReset": "",
    "successes": 0,
    "failures": 0,
    "slow": 0,
    "ignored": 0,
    "notPermitted": 0,
    "late": 0,
    "probesGranted": 0,
    "probesSucceeded": 0,
    "probesFailed": 0,
    "probesIgnored": 0,
    "probesExpired": 0,
    "shadowState": "Closed",
    "shadowOpenUntil": None,
    "shadowAttempt": 0,
    "shadowProbeSuccesses": 0,
    "shadowOpened": 0,
    "shadowNotPermitted": 0,
}
_DEFINITION: Final[Step] = {"configure": {}, "reply": {"result": "Created"}, "messages": [" -> Closed Created"]}
_RELATIVE: Final = ("incarnation", "since", "openUntil")  # instants of a state to resume from


@dataclass(frozen=True, slots=True)
class Difference:
    """What a scenario expects of one thing, and what was seen."""

    what: str
    expected: Any
    seen: Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a scenario. `step`: the first one that went otherwise than written, from 1; 0: the definition."""

    scenario: Scenario
    step: int | None = None
    differences: tuple[Difference, ...] = ()

    @property
    def passed(self) -> bool:
        return self.step is None

    def __str__(self) -> str:
        """The step and its differences, a line each; empty when the scenario passed."""
        if self.step is None:
            return ""
        told = _told(self.scenario.steps[self.step - 1]) if self.step else "the breaker's definition"
        lines = [f"step {self.step} of {len(self.scenario.steps)}: {told}"]
        width = max(len(difference.what) for difference in self.differences)
        for each in self.differences:
            lines.append(f"  {each.what:<{width}}  expected  {_shown(each.expected)}")
            lines.append(f"  {'':<{width}}  seen      {_shown(each.seen)}")
        return "\n".join(lines)


def play(scenario: Scenario, store: Store) -> Verdict:
    """Plays on an empty store, to the end or to the first step that goes otherwise than written."""
    expected: Mapping[str, Any] | None = None
    for number, step, seen in played(scenario, store):
        expected = expected_after(expected, step)
        if differences := tuple(_differences(step, expected, seen)):
            return Verdict(scenario, number, differences)
    return Verdict(scenario)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one step did. `standing`: state and order as the reply told them, `stored` the same as observed after it."""

    reply: Mapping[str, Any]
    error: str | None
    messages: list[str]
    state: Mapping[str, Any] | None
    shown: Mapping[str, str]
    standing: list[Any] | None
    stored: list[Any] | None


def played(scenario: Scenario, store: Store) -> Iterator[tuple[int, Step, Seen]]:
    """Each step with what it did; the definition is step 0."""
    player, now_ms = _Player(scenario, store), 0
    steps = ([_DEFINITION] if scenario.defined else [{}]) + [*scenario.steps]
    for number, step in enumerate(steps):
        now_ms = step.get("at", now_ms + step.get("wait", 0))
        store.set_clock(BASE_MS + now_ms)
        if number or scenario.defined:
            yield number, step, player.seen(step)
        else:
            player.snapshot()


def expected_after(before: Mapping[str, Any] | None, step: Step) -> Mapping[str, Any] | None:
    """The whole state that a step leaves; None: no breaker."""
    if step is _DEFINITION:
        return BLANK
    if "then" not in step:
        return before
    return None if step["then"] is None else {**(BLANK if before is None else before), **step["then"]}


def state_of(snapshot: Snapshot) -> dict[str, Any]:
    """The whole state as scenarios write it, with times relative to the clock's zero."""
    totals, probes, shadow = snapshot.totals, snapshot.probes, snapshot.shadow or Shadow()
    return {
        "state": snapshot.state.value,
        "reason": snapshot.reason.value,
        "since": snapshot.since_ms - BASE_MS,
        "openUntil": _relative(snapshot.open_until_ms),
        "due": snapshot.due,
        "forced": snapshot.forced.value if snapshot.forced else "",
        "incarnation": snapshot.order.incarnation - BASE_MS,
        "generation": snapshot.order.generation,
        "revision": snapshot.order.revision,
        "attempt": snapshot.attempt,
        "consecutiveFailures": snapshot.consecutive_failures,
        "windowCalls": snapshot.window.calls,
        "windowFailures": snapshot.window.failures,
        "windowSlow": snapshot.window.slow,
        "probeSuccesses": snapshot.probe_successes,
        "probesLost": snapshot.probes_lost,
        "probesLive": snapshot.probes_live,
        "reporters": snapshot.reporters,
        "lastReset": snapshot.last_reset,
        "successes": totals.successes,
        "failures": totals.failures,
        "slow": totals.slow,
        "ignored": totals.ignored,
        "notPermitted": totals.not_permitted,
        "late": totals.late,
        "probesGranted": probes.granted,
        "probesSucceeded": probes.succeeded,
        "probesFailed": probes.failed,
        "probesIgnored": probes.ignored,
        "probesExpired": probes.expired,
        "shadowState": shadow.state.value,
        "shadowOpenUntil": _relative(shadow.open_until_ms),
        "shadowAttempt": shadow.attempt,
        "shadowProbeSuccesses": shadow.probe_successes,
        "shadowOpened": shadow.opened,
        "shadowNotPermitted": shadow.not_permitted,
    }


def _differences(step: Step, expected: Mapping[str, Any] | None, seen: Seen) -> Iterator[Difference]:
    wanted_error = step.get("error")
    if seen.error != wanted_error:
        yield Difference("error", wanted_error, seen.error)
    for name, value in step.get("reply", {}).items():
        if seen.reply.get(name) != value:
            yield Difference(f"reply: {name}", value, seen.reply.get(name))
    if seen.standing is not None and seen.standing != seen.stored:
        yield Difference("reply: standing", seen.stored, seen.standing)
    if seen.messages != step.get("messages", []):
        yield Difference("messages", step.get("messages", []), seen.messages)
    if (seen.state is None) != (expected is None):
        yield Difference("breaker", "none" if expected is None else "there", "none" if seen.state is None else "there")
    elif seen.state is not None and expected is not None:
        for name in sorted(set(expected) | set(seen.state), key=[*BLANK].index):
            if expected.get(name) != seen.state.get(name):
                yield Difference(name, expected.get(name), seen.state.get(name))
    shows = step.get("shown", expected["state"] if expected is not None else None)
    wanted = {} if shows is None else {str(BREAKER): shows}
    if dict(seen.shown) != wanted:
        yield Difference("shared hash", wanted, dict(seen.shown))


class _Player:
    """Sends the calls of a scenario, and remembers what a caller has to."""

    def __init__(self, scenario: Scenario, store: Store) -> None:
        self.scenario, self.store = scenario, store
        self.seqs: dict[str, int] = {}
        self.order = (0, 0)

    def seen(self, step: Step) -> Seen:
        reply: Mapping[str, Any] = {}
        standing: list[Any] | None = None
        error: str | None = None
        try:
            reply, standing = self._sent(step)
        except ContractError as refused:
            error = f"{refused.prefix} {refused}"
        except CircuitBreakerError as unexpected:
            error = str(unexpected)
        try:
            snapshot = self.snapshot()
        except CircuitBreakerError as unexpected:
            snapshot, error = None, error or f"cb_observe: {unexpected}"
        messages = [
            f"{message.get('previous')} -> {message.get('state')} {message.get('reason')}"
            for message in self.store.messages()
        ]
        state = state_of(snapshot) if snapshot else None
        stored = [snapshot.state.value, *snapshot.order] if snapshot else None
        return Seen(reply, error, messages, state, self.store.states(Keys()), standing, stored)

    def snapshot(self) -> Snapshot | None:
        call = protocol.observe(KEY)
        try:
            snapshot = call.read(self.store.execute(*call.command()))
        except UnknownBreakerError:
            return None
        self.order = snapshot.order[:2]
        return snapshot

    def _sent(self, step: Step) -> tuple[Mapping[str, Any], list[Any] | None]:
        action = next((name for name in ACTIONS if name in step), None)
        if action is None:
            return {}, None
        args = self._arguments(action, step)
        function = ("FCALL_RO" if action == "observe" else "FCALL", f"cb_{action}", 1, step.get("key", KEY))
        raw: Any = None
        for _ in range(step.get("times", 1)):
            raw = self.store.execute(*function, *args)
        try:
            return _reply(action, raw)
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise protocol.ReplyError(f"cb_{action} replied outside the contract: {raw!r}") from error

    def _arguments(self, action: str, step: Step) -> list[str | int]:
        value, client = step[action], step.get("client", "a")
        incarnation, generation = step.get("from", (self.order[0] - BASE_MS, self.order[1]))
        order = (incarnation + BASE_MS, generation)
        if action == "configure":
            return self._definition(value)
        if action == "acquire":
            return [client, value]
        if action == "report":
            seq = step.get("seq", self.seqs.get(client, 0) + 1)
            self.seqs[client] = seq if isinstance(seq, int) else 0
            return [client, seq, *order, value]
        if action == "settle":
            lease, outcome = value.split()
            return [client, lease, *order, outcome]
        if action == "observe":
            return [] if value is None else [value]
        return [*value.split()] if isinstance(value, str) else []  # reset: uid, token; delete: owner, uid; tick

    def _definition(self, value: Mapping[str, Any]) -> list[str | int]:
        policy = {**DEFAULTS, **self.scenario.policy, **value.get("policy", {})}
        policy = {name: each for name, each in policy.items() if each is not None}
        if "overrideUntil" in policy:
            policy["overrideUntil"] += BASE_MS
        args: list[str | int] = [value.get("owner", "o"), value.get("uid", "u1"), value.get("generation", 1)]
        args += [value.get("rawPolicy") or _json(policy), value.get("project", 1)]
        if "resume" in value:
            resume = {name: each + BASE_MS if name in _RELATIVE else each for name, each in value["resume"].items()}
            args.append(_json(resume))
        return args


_MORE: Final[Mapping[str, tuple[str, ...]]] = {  # what a reply holds after the standing
    "configure": ("result",),
    "acquire": ("decision", "leaseMs"),
    "tick": ("dueInMs", "activity"),
    "reset": ("done",),
}


def _reply(action: str, raw: Any) -> tuple[Mapping[str, Any], list[Any] | None]:
    """The reply by names, and the standing that it begins with (None: it has none)."""
    if action == "delete":
        return {"deleted": raw[0]}, None
    if action == "observe":
        snapshot = protocol.observe(KEY).read(raw)
        history = [_moved(entry) for entry in snapshot.history]
        return {"retryAfterMs": snapshot.retry_after_ms, "history": history}, None
    state, incarnation, generation, revision, retry_after_ms, *more = (_plain(part) for part in raw)
    named = dict(zip(_MORE.get(action, ()), more, strict=True))
    return {"retryAfterMs": retry_after_ms, **named}, [state, incarnation, generation, revision]


def _moved(entry: Transition) -> str:
    return f"{entry.previous or ''} -> {entry.state} {entry.reason}"


def _plain(part: Any) -> Any:
    return part.decode() if isinstance(part, bytes) else part


def _relative(at_ms: int | None) -> int | None:
    return None if at_ms is None else at_ms - BASE_MS


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _told(step: Step) -> str:
    """What is done in a step, in a line."""
    parts = [f"{name}: {_shown(value)}" for name, value in step.items() if name not in {"reply", "messages", "then"}]
    return ", ".join(parts) or "nothing is done"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value or '""'
    return "nothing" if value is None else json.dumps(value)
