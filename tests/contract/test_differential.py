"""The Lua and its twin, driven with the same random histories, never differ in what they reply, say and store."""

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuitbreaker_contract.errors import ContractError
from circuitbreaker_contract.keys import BreakerKey, Keys
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.rules import Breaker
from tests.contract.stores import LuaStore, TwinStore

KEY = Keys().breaker(BreakerKey("demo", "payments"))
START_MS = 1_800_000_000_000

policies = st.builds(
    Policy,
    failure_threshold=st.integers(1, 5),
    recovery_timeout_ms=st.sampled_from([100, 1_000, 30_000]),
    half_open_limit=st.integers(1, 3),
    success_threshold=st.integers(1, 3),
    probe_timeout_ms=st.sampled_from([100, 700, 5_000]),
)
clients = st.sampled_from(["a", "b", "c"])
leases = st.sampled_from(["l1", "l2", "l3", "l4"])
runs = st.tuples(st.sampled_from("SFLMIN"), st.integers(1, 5)).map(lambda run: f"{run[0]}{run[1]}")
resumes = st.none() | st.fixed_dictionaries(
    {
        "incarnation": st.integers(START_MS - 99_999, START_MS + 99_999),
        "generation": st.integers(0, 9),
        "state": st.sampled_from(["Closed", "Open", "HalfOpen"]),
        "since": st.integers(START_MS - 99_999, START_MS + 99_999),
        "openUntil": st.integers(START_MS - 99_999, START_MS + 99_999),
        "attempt": st.integers(0, 3),
    }
)


@dataclass(frozen=True)
class Step:
    """`ago`: how many generations back the caller's knowledge lies."""

    function: str
    jump_ms: int
    args: tuple[Any, ...] = field(default=())
    ago: int = 0
    times: int = 1


jumps = st.sampled_from([0] * 20 + [1, 50, 99, 100, 101, 700, 1_000, 5_000, 30_000, 700_000, -1, -500, -40_000])
ago = st.sampled_from([0] * 6 + [1, 2, -1])
times = st.sampled_from([1, 1, 2])
acquires = st.builds(Step, st.just("cb_acquire"), jumps, st.tuples(clients, leases), times=times)
settles = st.builds(
    Step, st.just("cb_settle"), jumps, st.tuples(clients, leases, st.sampled_from("SSSSFLMI")), ago, times
)
batches = st.lists(runs, min_size=1, max_size=5).map(" ".join)
reports = st.builds(Step, st.just("cb_report"), jumps, st.tuples(clients, st.integers(1, 30), batches), ago, times)
ticks = st.builds(Step, st.just("cb_tick"), jumps)
resets = st.builds(Step, st.just("cb_reset"), jumps, st.tuples(st.just("u1"), st.sampled_from(["t1", "t2"])))
deletions = st.builds(Step, st.just("cb_delete"), jumps, st.tuples(st.just("o"), st.just("u1")))
owners, uids = st.sampled_from(["o", "o", "env", "p"]), st.sampled_from(["u1", "u1", "u1", "u2"])
edits = st.builds(Step, st.just("cb_configure"), jumps, st.tuples(owners, uids, st.integers(1, 3), policies, resumes))
# Most of what happens to a breaker is asking and answering; the rest disturbs it now and then.
steps = st.integers(0, 19).flatmap(
    lambda n: (acquires, settles, reports)[n % 3] if n < 15 else (ticks, ticks, resets, deletions, edits)[n - 15]
)


def command(step: Step, order: tuple[int, int]) -> tuple[str | int, ...]:
    known = (order[0], order[1] - step.ago)
    args: tuple[str | int, ...] = step.args
    if step.function in ("cb_report", "cb_settle"):
        args = (step.args[0], step.args[1], known[0], max(0, known[1]), step.args[2])
    elif step.function == "cb_configure":
        owner, uid, generation, policy, resume = step.args
        args = (owner, uid, generation, policy.to_json(), 1, *([json.dumps(resume)] if resume else []))
    return ("FCALL", step.function, 1, KEY, *args)


def answer(store: LuaStore | TwinStore, *parts: str | int) -> Any:
    try:
        reply = store.execute(*parts)
    except ContractError as error:
        return f"{error.prefix} {error}"
    if parts[1] != "cb_observe":
        return reply
    named = dict(zip(reply[::2], reply[1::2], strict=True))
    named["transitionTotals"] = sorted(named["transitionTotals"])
    return named


def leases_of(breaker: Breaker | None) -> dict[str, float]:
    """The sorted set that the twin's leases would be in Redis."""
    if breaker is None:
        return {}
    ended = {name: -(10**14) - e.at_ms if e.settled else -e.at_ms for name, e in breaker.ended.items()}
    return {name: float(score) for name, score in {**breaker.live, **ended}.items()}


def reporters_of(breaker: Breaker | None) -> dict[str, str]:
    return {name: f"{r.seq}:{r.seen_ms}:{r.bad_ms}" for name, r in breaker.reporters.items()} if breaker else {}


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)
@given(policy=policies, resume=resumes, history=st.lists(steps, min_size=1, max_size=40))
def test_same_history_same_answers(
    lua_store: LuaStore, policy: Policy, resume: dict[str, Any] | None, history: list[Step]
) -> None:
    """Whatever is asked, in whatever order and on whatever clock, Lua and twin answer and end alike."""
    twin, now_ms = TwinStore(), START_MS
    lua_store.client.flushall()
    lua_store.messages()
    first = Step("cb_configure", 0, ("o", "u1", 1, policy, resume))
    order = (0, 0)
    for step in [first, *history]:
        now_ms += step.jump_ms
        twin.set_clock(now_ms)
        lua_store.set_clock(now_ms)
        for _ in range(step.times):
            sent = command(step, order)
            assert answer(twin, *sent) == answer(lua_store, *sent), sent
        observed = answer(twin, "FCALL_RO", "cb_observe", 1, KEY, 256)
        assert observed == answer(lua_store, "FCALL_RO", "cb_observe", 1, KEY, 256), step
        breaker = twin.memory.breakers.get(KEY)
        assert leases_of(breaker) == dict(lua_store.client.zrange(f"{KEY}:probes", 0, -1, withscores=True))
        assert reporters_of(breaker) == lua_store.client.hgetall(f"{KEY}:reporters")
        assert twin.states(Keys()) == lua_store.states(Keys())
        assert twin.messages() == lua_store.messages()
        order = (observed["incarnation"], observed["generation"]) if isinstance(observed, dict) else (0, 0)
