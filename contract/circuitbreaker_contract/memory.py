"""The contract in memory: takes the commands that Redis takes and gives the replies that Redis gives, from rules.py.

For a process that shares nothing, and for tests that hold the Lua to its twin. Not thread-safe; time is handed in.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from circuitbreaker_contract import library, rules
from circuitbreaker_contract.arguments import check_batch, check_id, check_key, check_whole
from circuitbreaker_contract.breaker import Breaker, Definition, Note
from circuitbreaker_contract.errors import InvalidArgumentError, InvalidPolicyError, OwnershipError, UnknownBreakerError
from circuitbreaker_contract.keys import DEFAULT_PREFIX, Keys
from circuitbreaker_contract.policy import Policy, number_of
from circuitbreaker_contract.protocol import MAX_HISTORY
from circuitbreaker_contract.state import Outcome, Projection, Resume, Standing, State, Totals, Transition

Reply = list[Any]


@dataclass(slots=True)
class Memory:
    """Breakers by key, and the two shared names. `now_ms` is the clock, in ms since the Unix epoch."""

    now_ms: Callable[[], int]
    breakers: dict[str, Breaker] = field(default_factory=dict)
    states: dict[str, dict[str, str]] = field(default_factory=dict)  # name of the hash -> field -> state
    published: list[tuple[str, str]] = field(default_factory=list)  # channel, message

    def execute(self, *command: str | int) -> Reply:
        """Runs FCALL or FCALL_RO; raises the ContractError that the functions would answer with."""
        _, function, count, *rest = command
        keys, args = rest[: int(count)], [str(arg) for arg in rest[int(count) :]]
        if function == "cb_version":
            return [library.CONTRACT_VERSION, library.VERSION, library.digest()]
        least, most, run = self._function(str(function))
        if len(keys) != 1:
            raise InvalidArgumentError("one key is needed, the breaker's")
        check_key(str(keys[0]))
        if not least <= len(args) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise InvalidArgumentError(f"arguments: {wanted} are needed, not {len(args)}")
        return run(str(keys[0]), args)

    def _function(self, name: str) -> tuple[int, int, Callable[[str, list[str]], Reply]]:
        """The fewest and the most arguments it takes, and what it does."""
        functions = {
            "cb_configure": (5, 6, self._configure),
            "cb_acquire": (2, 2, self._acquire),
            "cb_report": (5, 5, self._report),
            "cb_settle": (5, 5, self._settle),
            "cb_observe": (0, 1, self._observe),
            "cb_tick": (0, 0, self._tick),
            "cb_reset": (2, 2, self._reset),
            "cb_delete": (2, 2, self._delete),
        }
        return functions[name]

    def _breaker(self, key: str) -> Breaker:
        if key not in self.breakers:
            raise UnknownBreakerError(f"no breaker at {key}")
        return self.breakers[key]

    def _save(self, key: str, breaker: Breaker) -> None:
        self.breakers[key] = replace(breaker, notes=())
        if breaker.projection is Projection.NOTHING or not breaker.notes:
            return
        names, service = _shared(key)
        if breaker.projection is Projection.SHARED:
            self.states.setdefault(names.states, {})[service] = breaker.state.value
        for note in breaker.notes:
            self._publish(key, breaker, note)

    def _publish(self, key: str, breaker: Breaker, note: Note) -> None:
        names, service = _shared(key)
        text = _message(service, note, breaker.revision)
        self.published.append((names.updates, text))
        if breaker.projection is Projection.MESSAGES:
            self.published.append((names.updates_of(service.partition("/")[0]), text))

    def _configure(self, key: str, args: list[str]) -> Reply:
        owner, uid = check_id("owner", args[0]), check_id("uid", args[1])
        generation = check_whole("generation", args[2])
        try:
            policy = Policy.from_json(args[3])
        except InvalidPolicyError as error:
            raise InvalidArgumentError(f"policy: {error}") from None
        if args[4] not in ("0", "1", "2"):
            raise InvalidArgumentError("project: must be 0, 1 or 2")
        resume = _resume(args[5]) if len(args) == 6 else None
        now_ms = self.now_ms()
        wanted = Definition(owner, uid, generation, policy, projection=Projection(int(args[4])), resume=resume)
        breaker, result = rules.configured(self.breakers.get(key), now_ms, wanted)
        self._save(key, breaker)
        return [*_standing(rules.standing(breaker, now_ms, uid)), result.value]

    def _acquire(self, key: str, args: list[str]) -> Reply:
        client, lease = check_id("client", args[0]), check_id("lease", args[1])
        breaker, permit = rules.acquired(self._breaker(key), self.now_ms(), client=client, lease=lease)
        self._save(key, breaker)
        return [*_standing(permit.standing), permit.decision.value, permit.lease_ms]

    def _report(self, key: str, args: list[str]) -> Reply:
        client, seq = check_id("client", args[0]), check_whole("seq", args[1], least=1)
        order = (check_whole("incarnation", args[2]), check_whole("generation", args[3]))
        runs = check_batch(args[4])
        now_ms = self.now_ms()
        breaker = rules.reported(self._breaker(key), now_ms, client=client, seq=seq, order=order, runs=runs)
        self._save(key, breaker)
        return _standing(rules.standing(breaker, now_ms, client))

    def _settle(self, key: str, args: list[str]) -> Reply:
        client, lease = check_id("client", args[0]), check_id("lease", args[1])
        order = (check_whole("incarnation", args[2]), check_whole("generation", args[3]))
        if args[4] not in set(Outcome):
            raise InvalidArgumentError("outcome: must be S, F, L, M or I")
        now_ms, outcome = self.now_ms(), Outcome(args[4])
        breaker = rules.settled(self._breaker(key), now_ms, client=client, lease=lease, order=order, outcome=outcome)
        self._save(key, breaker)
        return _standing(rules.standing(breaker, now_ms, client))

    def _observe(self, key: str, args: list[str]) -> Reply:
        count = check_whole("history", args[0], most=MAX_HISTORY) if args else 0
        return [part for pair in _observed(self._breaker(key), self.now_ms(), count).items() for part in pair]

    def _tick(self, key: str, _args: list[str]) -> Reply:
        breaker, tick = rules.ticked(self._breaker(key), now_ms := self.now_ms())
        names, service = _shared(key)
        shown = self.states.get(names.states, {}).get(service)
        if breaker.projection is Projection.SHARED and not breaker.notes and shown != breaker.state:
            breaker = rules.noted_again(breaker, now_ms)
        self._save(key, breaker)
        due_in_ms = -1 if tick.due_in_ms is None else tick.due_in_ms
        return [*_standing(tick.standing), due_in_ms, tick.activity]

    def _reset(self, key: str, args: list[str]) -> Reply:
        uid, token = check_id("uid", args[0]), check_id("token", args[1])
        now_ms = self.now_ms()
        breaker, done = rules.was_reset(self._breaker(key), now_ms, uid=uid, token=token)
        self._save(key, breaker)
        return [*_standing(rules.standing(breaker, now_ms, uid)), int(done)]

    def _delete(self, key: str, args: list[str]) -> Reply:
        owner, uid = check_id("owner", args[0]), check_id("uid", args[1])
        breaker = self.breakers.get(key)
        if breaker is None:
            return [0]
        if breaker.owner != owner:
            raise OwnershipError(f"the breaker belongs to owner {breaker.owner}")
        if breaker.uid != uid:
            return [0]
        del self.breakers[key]
        if breaker.projection is Projection.SHARED:
            names, service = _shared(key)
            self.states.get(names.states, {}).pop(service, None)
        if breaker.projection is not Projection.NOTHING:
            self._publish(key, breaker, rules.deletion(breaker, self.now_ms()))
        return [1]


def _standing(standing: Standing) -> Reply:
    return [standing.state.value, *standing.order, standing.retry_after_ms]


def _shared(key: str) -> tuple[Keys, str]:
    prefix = key.partition("{")[0]
    return Keys(prefix or DEFAULT_PREFIX), str(check_key(key))


def _message(service: str, note: Note, revision: int) -> str:
    at = datetime.fromtimestamp(note.at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return json.dumps(
        {
            "service": service,
            "state": note.state or "",
            "timestamp": f"{at}.{note.at_ms % 1000:03d}Z",
            "previous": note.previous or "",
            "reason": note.reason,
            "incarnation": note.incarnation,
            "generation": note.generation,
            "revision": revision,
            "retryAfterMs": note.retry_after_ms,
            "version": library.CONTRACT_VERSION,
        },
        separators=(",", ":"),
    )


def _resume(text: str) -> Resume:
    try:
        raw = json.loads(text)
    except ValueError:
        raw = None
    if not isinstance(raw, dict):
        raise InvalidArgumentError("resume: not a JSON object")
    last_reset = raw.get("lastReset", "")
    if last_reset != "":
        check_id("resume: lastReset", last_reset if isinstance(last_reset, str) else "")
    if "state" not in raw:
        return Resume(last_reset)
    if raw["state"] not in list(State):
        raise InvalidArgumentError("resume: state: must be Closed, Open or HalfOpen")
    forced = raw.get("forced", "")
    if forced not in ["", "Open", "Closed"]:
        raise InvalidArgumentError("resume: forced: must be Open, Closed or empty")
    if forced not in ["", raw["state"]]:
        raise InvalidArgumentError("resume: forced: must be the state")
    for name in ("incarnation", "generation", "since", "openUntil", "attempt"):
        value = raw[name] = number_of(raw.get(name, 0))
        if type(value) is not int or not 0 <= value <= 9_000_000_000_000:
            raise InvalidArgumentError(f"resume: {name}: must be a whole number from 0 to 9000000000000")
    order = (raw["incarnation"], raw["generation"])
    held = State(forced) if forced else None
    return Resume(last_reset, order, State(raw["state"]), raw["since"], raw["openUntil"], raw["attempt"], held)


def _observed(breaker: Breaker, now_ms: int, count: int) -> dict[str, Any]:
    breaker = rules.believed(breaker, now_ms)
    half_open = breaker.state is State.HALF_OPEN
    live = sum(at > now_ms for at in breaker.live.values()) if half_open else 0
    due = half_open and (live < len(breaker.live) or rules.are_probes_lost(breaker))
    due = due or rules.is_override_over(breaker, now_ms) or rules.is_opening_over(breaker, now_ms)
    due = due or rules.is_shadow_due(breaker, now_ms)
    window, shadow = rules.window_counts(breaker, now_ms), breaker.shadow
    spent = {state: breaker.state_ms.get(state, 0) for state in State}
    spent[breaker.state] += max(0, now_ms - breaker.counted_at_ms)
    return {
        "now": now_ms,
        "due": int(due),
        "retryAfterMs": rules.retry_after_ms(breaker, now_ms),
        "consecutiveFailures": breaker.streak,
        "probesLive": live,
        "reporters": rules.reporters_seen(breaker, now_ms),
        "owner": breaker.owner,
        "uid": breaker.uid,
        "policy": breaker.policy.to_json(),
        "state": breaker.state.value,
        "reason": breaker.reason.value,
        "lastReset": breaker.last_reset,
        "resourceGeneration": breaker.resource_generation,
        "project": int(breaker.projection),
        "projectFailed": 0,
        "incarnation": breaker.incarnation,
        "generation": breaker.generation,
        "revision": breaker.revision,
        "since": breaker.since_ms,
        "countedAt": breaker.counted_at_ms,
        "openUntil": breaker.open_until_ms,
        "openLength": breaker.open_length_ms,
        "attempt": breaker.attempt,
        "streak": breaker.streak,
        "probeSuccesses": breaker.probe_successes,
        "probesLost": breaker.probes_lost,
        "probeLength": breaker.probe_length_ms,
        "windowCalls": window.calls,
        "windowFailures": window.failures,
        "windowSlow": window.slow,
        "forced": breaker.forced.state.value if breaker.forced else "",
        "forcedUntil": breaker.forced.until_ms if breaker.forced else 0,
        "forcedLength": breaker.forced.length_ms if breaker.forced else 0,
        "overrideEnded": breaker.override_ended,
        "shadowState": shadow.state.value,
        "shadowSince": shadow.since_ms,
        "shadowReason": shadow.reason,
        "shadowOpenUntil": shadow.open_until_ms or 0,
        "shadowOpenLength": breaker.shadow_length_ms,
        "shadowAttempt": shadow.attempt,
        "shadowProbeSuccesses": shadow.probe_successes,
        "shadowOpened": shadow.opened,
        "shadowNotPermitted": shadow.not_permitted,
        "streakId": breaker.streak_id,
        "reportersKept": len(breaker.reporters),
        "reportersSweptAt": breaker.reporters_swept_at_ms,
        **{name: getattr(breaker.totals, total.name) for name, total in zip(_TOTALS, fields(Totals), strict=True)},
        "probesGranted": breaker.probes.granted,
        "probesSucceeded": breaker.probes.succeeded,
        "probesFailed": breaker.probes.failed,
        "probesIgnored": breaker.probes.ignored,
        "probesExpired": breaker.probes.expired,
        **{f"ms{state.value}": spent[state] for state in State},
        "transitionTotals": [[a.value, b.value, c.value, n] for (a, b, c), n in breaker.transition_totals.items()],
        "history": [_entry(entry) for entry in breaker.history[len(breaker.history) - min(count, MAX_HISTORY) :]]
        if count
        else [],
    }


_TOTALS = ("successes", "failures", "slow", "ignored", "notPermitted", "late")


def _entry(entry: Transition) -> Reply:
    named = {
        "previous": entry.previous.value if entry.previous else "",
        "state": entry.state.value,
        "at": entry.at_ms,
        "reason": entry.reason.value,
        "incarnation": entry.incarnation,
        "generation": entry.generation,
        "attempt": entry.attempt,
        "consecutiveFailures": entry.consecutive_failures,
        "openUntil": entry.open_until_ms or 0,
        "windowCalls": entry.window.calls,
        "windowFailures": entry.window.failures,
        "windowSlow": entry.window.slow,
        "forced": entry.forced.value if entry.forced else "",
        "note": entry.note,
    }
    return [part for name, value in named.items() for part in (name, str(value))]
