"""Plays the scenarios of contract/vectors (format: contract/vectors/README.md) on any store."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import ContractError, UnknownBreakerError
from circuitbreaker_contract.keys import BreakerKey, Keys
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Snapshot
from tests.contract.stores import Store

VECTORS = Path(__file__).parents[2] / "contract" / "vectors"
BASE_MS = 1_800_000_000_000  # the virtual clock's zero
KEY = Keys().breaker(BreakerKey("demo", "payments"))
DEFAULTS = {
    "failureThreshold": 3,
    "recoveryTimeoutMs": 10_000,
    "halfOpenLimit": 2,
    "successThreshold": 2,
    "probeTimeoutMs": 5_000,
}
ACTIONS = ("configure", "acquire", "report", "settle", "observe", "tick", "reset", "delete")
STEP_FIELDS = {*ACTIONS, "at", "wait", "client", "seq", "from", "reply", "error", "messages", "then", "times", "key"}


@dataclass(frozen=True)
class Scenario:
    group: str
    name: str
    policy: dict[str, int]
    steps: list[dict[str, Any]]
    defined: bool


def load() -> Iterator[Scenario]:
    for path in sorted(VECTORS.glob("*.yaml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert document["format"] == 1, path
        for raw in document["scenarios"]:
            assert set(raw) <= {"name", "policy", "steps", "defined"}, raw["name"]
            yield Scenario(
                document["group"], raw["name"], raw.get("policy", {}), raw["steps"], raw.get("defined", True)
            )


def state_of(snapshot: Snapshot) -> dict[str, Any]:
    """The whole state as scenarios write it, with times relative to the clock's zero."""
    totals, probes = snapshot.totals, snapshot.probes
    return {
        "state": snapshot.state.value,
        "reason": snapshot.reason.value,
        "since": snapshot.since_ms - BASE_MS,
        "openUntil": None if snapshot.open_until_ms is None else snapshot.open_until_ms - BASE_MS,
        "due": snapshot.due,
        "incarnation": snapshot.order.incarnation - BASE_MS,
        "generation": snapshot.order.generation,
        "revision": snapshot.order.revision,
        "attempt": snapshot.attempt,
        "consecutiveFailures": snapshot.consecutive_failures,
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
    }


class Player:
    """Plays one scenario, step by step; `play` yields (expected, seen) for each step."""

    def __init__(self, scenario: Scenario, store: Store) -> None:
        self.scenario, self.store, self.now = scenario, store, 0
        self.seqs: dict[str, int] = {}
        self.order = (0, 0)

    def play(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        expected: dict[str, Any] | None = None
        self.store.set_clock(BASE_MS)
        if self.scenario.defined:
            self._run({"configure": {}})
            self.store.messages()
            expected = self._state()
        for number, step in enumerate(self.scenario.steps, 1):
            assert set(step) <= STEP_FIELDS, step
            self.now = step.get("at", self.now + step.get("wait", 0))
            self.store.set_clock(BASE_MS + self.now)
            reply: dict[str, Any] = {}
            error: str | None = None
            try:
                reply = self._run(step)
            except ContractError as refused:
                error = f"{refused.prefix} {refused}"
            state = self._state()
            after = {**(expected or {}), **step["then"]} if step.get("then") is not None else expected
            if step.get("then", "") is None:
                after = None
            shown = {"demo/payments": state["state"]} if state else {}
            seen = {
                "step": number,
                "reply": {name: reply.get(name) for name in step.get("reply", {})},
                "error": error,
                "messages": [f"{m['previous']} -> {m['state']} {m['reason']}" for m in self.store.messages()],
                "state": state,
                "shown": self.store.states(Keys()),
            }
            wanted = {
                "step": number,
                "reply": step.get("reply", {}),
                "error": step.get("error"),
                "messages": step.get("messages", []),
                "state": after,
                "shown": shown,
            }
            expected = after
            yield wanted, seen

    def _run(self, step: dict[str, Any]) -> dict[str, Any]:
        action = next((name for name in ACTIONS if name in step), None)
        if action is None:
            return {}
        value, client = step[action], step.get("client", "a")
        incarnation, generation = step.get("from", (self.order[0] - BASE_MS, self.order[1]))
        order = (incarnation + BASE_MS, generation)
        args = getattr(self, f"_{action}")(value, client, order, step)
        fcall = "FCALL_RO" if action == "observe" else "FCALL"
        reply: dict[str, Any] = {}
        for _ in range(step.get("times", 1)):
            reply = self._reply(action, self.store.execute(fcall, f"cb_{action}", 1, step.get("key", KEY), *args))
        return reply

    def _configure(self, value: dict[str, Any], *_: Any) -> list[str | int]:
        policy = {**DEFAULTS, **self.scenario.policy, **value.get("policy", {})}
        policy_text = value.get("rawPolicy") or Policy.from_mapping(policy).to_json()
        args: list[str | int] = [value.get("owner", "o"), value.get("uid", "u1"), value.get("generation", 1)]
        args += [policy_text, value.get("project", 1)]
        if "resume" in value:
            resume = dict(value["resume"])
            for name in ("incarnation", "since", "openUntil"):
                if name in resume:
                    resume[name] += BASE_MS
            args.append(yaml_json(resume))
        return args

    def _acquire(self, lease: str, client: str, *_: Any) -> list[str | int]:
        return [client, lease]

    def _report(self, batch: str, client: str, order: tuple[int, int], step: dict[str, Any]) -> list[str | int]:
        seq = step.get("seq", self.seqs.get(client, 0) + 1)
        self.seqs[client] = seq if isinstance(seq, int) else 0
        return [client, seq, *order, batch]

    def _settle(self, value: str, client: str, order: tuple[int, int], _: Any) -> list[str | int]:
        lease, outcome = value.split()
        return [client, lease, *order, outcome]

    def _observe(self, value: Any, *_: Any) -> list[str | int]:
        return [] if value is None else [value]

    def _tick(self, *_: Any) -> list[str | int]:
        return []

    def _reset(self, value: str, *_: Any) -> list[str | int]:
        uid, token = value.split()
        return [uid, token]

    def _delete(self, value: str, *_: Any) -> list[str | int]:
        owner, uid = value.split()
        return [owner, uid]

    def _reply(self, action: str, raw: Any) -> dict[str, Any]:
        if action in ("observe", "delete"):
            return {"deleted": raw[0]} if action == "delete" else {}
        named: dict[str, Any] = {"retryAfterMs": raw[4]}
        extra = {"configure": ("result",), "acquire": ("decision", "leaseMs"), "tick": ("dueInMs", "activity")}
        named |= dict(zip(extra.get(action, ("done",) if action == "reset" else ()), raw[5:], strict=True))
        state = self._snapshot()
        assert [raw[0], *raw[1:4]] == [state.state.value, *state.order], "a reply tells the order that is stored"
        return named

    def _snapshot(self) -> Snapshot:
        call = protocol.observe(KEY, history=1)
        return call.read(self.store.execute(*call.command()))

    def _state(self) -> dict[str, Any] | None:
        try:
            snapshot = self._snapshot()
        except UnknownBreakerError:
            return None
        self.order = snapshot.order[:2]
        return state_of(snapshot)


def yaml_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
