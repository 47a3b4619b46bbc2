"""The Lua and its twin, driven with the same random histories, never differ in what they reply, say and store.

`CB_EXAMPLES=100000 pytest tests/contract/test_differential.py` runs the long form. A failure prints the shrunk history
and a line that reproduces it.
"""

import json
import os
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuitbreaker_contract.breaker import Breaker
from circuitbreaker_contract.errors import ContractError
from circuitbreaker_contract.keys import BreakerKey, Keys
from circuitbreaker_contract.policy import Mode, Override, Policy
from circuitbreaker_contract.window import CountWindow
from tests.contract.layout import stored
from tests.contract.stores import LuaStore, TwinStore

KEY = Keys().breaker(BreakerKey("demo", "payments"))
START_MS = 1_800_000_000_000
EXAMPLES = int(os.environ.get("CB_EXAMPLES", "2000"))
CLIENTS = ["a", "b", "c"]
LEASES = ["l1", "l2", "l3", "l4"]


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Small numbers, so that everything happens soon."""
    rates = draw(st.sampled_from([(0, 0), (0, 0), (50, 0), (0, 50), (34, 67), (100, 100), (1, 0)]))
    window_calls, window_ms = draw(st.sampled_from([(0, 1_000), (0, 60_000), (1, 0), (4, 0), (7, 0), (50, 0)]))
    factor, jitter = draw(st.sampled_from([(0, None), (0, None), (2, None), (3, 20)]))
    recovery_ms = draw(st.sampled_from([100, 1_000, 30_000]))
    mode = draw(st.sampled_from([Mode.ENFORCE] * 3 + [Mode.OBSERVE]))
    override = draw(st.sampled_from([None] * 6 + ["Open", "Closed"]))
    if mode is Mode.OBSERVE and override == "Open":
        override = None
    until_ms = START_MS + draw(st.sampled_from([-START_MS, -1, 100, 5_000, 40_000]))
    return Policy(
        failure_threshold=draw(st.integers(0 if any(rates) else 1, 5)),
        recovery_timeout_ms=recovery_ms,
        half_open_limit=draw(st.integers(1, 3)),
        success_threshold=draw(st.integers(1, 3)),
        probe_timeout_ms=draw(st.sampled_from([100, 700, 5_000])),
        window_calls=window_calls,
        window_ms=window_ms,
        minimum_calls=min(draw(st.sampled_from([0, 1, 2, 5])), window_calls or 5),
        failure_rate_percent=rates[0],
        slow_call_duration_ms=2_000 if rates[1] else 0,
        slow_call_rate_percent=rates[1],
        backoff_factor=factor,
        backoff_max_ms=recovery_ms * 5 if factor else 0,
        jitter_percent=jitter,
        min_reporters=draw(st.sampled_from([1, 1, 1, 2, 3])),
        mode=mode,
        override=Override(override, until_ms, 'because "they" said \\ so') if override else None,
    )


@st.composite
def resumes(draw: st.DrawFn) -> dict[str, Any]:
    near = st.integers(START_MS - 99_999, START_MS + 99_999)
    state = draw(st.sampled_from(["Closed", "Open", "HalfOpen", "HalfOpen"]))
    return {
        "incarnation": draw(near),
        "generation": draw(st.integers(0, 9)),
        "state": state,
        "since": draw(near),
        "openUntil": draw(near),
        "attempt": draw(st.integers(0, 3)),
        "forced": draw(st.sampled_from(["", "", state])) if state != "HalfOpen" else "",
    }


@dataclass(frozen=True)
class Step:
    """One call. `ago`: how many generations old the caller's knowledge is; `times`: sent again after lost replies."""

    function: str
    jump_ms: int
    args: tuple[Any, ...] = ()
    ago: int = 0
    times: int = 1


JUMPS = [0] * 24 + [1, 49, 50, 99, 100, 101, 700, 1_000, 5_000, 30_000, 61_000, 700_000, -1, -500, -40_000]
runs = st.tuples(st.sampled_from("SSFFLMIN"), st.sampled_from([1, 1, 1, 2, 3, 5, 60])).map(
    lambda run: f"{run[0]}{run[1]}"
)


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """Most of what happens to a breaker is asking and answering; the rest disturbs it now and then."""
    kind = draw(st.integers(0, 39))
    jump, ago = draw(st.sampled_from(JUMPS)), draw(st.sampled_from([0] * 9 + [1, 2, -1]))
    times = draw(st.sampled_from([1, 1, 1, 2]))
    client, lease = draw(st.sampled_from(CLIENTS)), draw(st.sampled_from(LEASES))
    if kind < 12:
        batch = " ".join(draw(st.lists(runs, min_size=1, max_size=5)))
        return Step("cb_report", jump, (client, draw(st.integers(1, 40)), batch), ago, times)
    if kind < 21:
        return Step("cb_acquire", jump, (client, lease), times=times)
    if kind < 30:
        return Step("cb_settle", jump, (client, lease, draw(st.sampled_from("SSSSSFLMI"))), ago, times)
    if kind < 32:
        return Step("cb_tick", jump)
    if kind < 34:
        return Step("due", draw(st.sampled_from([-1, 0, 1])))
    if kind == 34:
        return Step("cb_reset", jump, ("u1", draw(st.sampled_from(["t1", "t2"]))))
    if kind == 35:
        return Step("cb_delete", jump, ("o", "u1"))
    owner, uid = draw(st.sampled_from(["o"] * 4 + ["env", "p"])), draw(st.sampled_from(["u1"] * 5 + ["u2"]))
    resume = draw(st.none() | resumes())
    return Step("cb_configure", jump, (owner, uid, draw(st.integers(1, 3)), draw(policies()), resume))


def command(step: Step, order: tuple[int, int]) -> tuple[str | int, ...]:
    known = (order[0], max(0, order[1] - step.ago))
    args: tuple[str | int, ...] = step.args
    if step.function in ("cb_report", "cb_settle"):
        args = (step.args[0], step.args[1], *known, step.args[2])
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
    for internal in ("windowAt", "bucketCalls", "bucketFailures", "bucketSlow"):
        named.pop(internal, None)
    return named


def leases_of(breaker: Breaker | None) -> dict[str, float]:
    """The sorted set that the twin's leases would be in Redis."""
    if breaker is None:
        return {}
    ended = {name: -(10**14) - e.at_ms if e.settled else -e.at_ms for name, e in breaker.ended.items()}
    return {name: float(score) for name, score in {**breaker.live, **ended}.items()}


def reporters_of(breaker: Breaker | None) -> dict[str, tuple[float, ...]]:
    known = breaker.reporters if breaker else {}
    return {name: tuple(float(number) for number in reporter) for name, reporter in known.items()}


def reporters_in(store: LuaStore) -> dict[str, tuple[float, ...]]:
    found = stored(store.client, KEY)
    return dict(found.reporters) if found else {}


def letters_of(breaker: Breaker | None) -> str | None:
    """What a count window holds, oldest first."""
    if breaker is None or not isinstance(breaker.window, CountWindow):
        return None
    return "".join(letter * count for letter, count in breaker.window.runs)


def letters_in(store: LuaStore, size: int) -> str:
    """The same from the ring in Redis."""
    ring = list((store.client.get(f"{KEY}:window") or "").ljust(size))
    found = stored(store.client, KEY, size)
    assert found is not None
    filled, at = int(found.counts["windowCalls"]), int(found.counts["windowAt"])
    for first, letters in ((at - filled, found.head), (at - len(found.tail), found.tail)):
        for place, letter in enumerate(letters, first):
            ring[place % size] = letter
    return "".join(ring[place % size] for place in range(at - filled, at))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
@given(policy=policies(), resume=st.none() | resumes(), history=st.lists(steps(), min_size=1, max_size=30))
def test_same_history_same_answers(
    lua_store: LuaStore, policy: Policy, resume: dict[str, Any] | None, history: list[Step]
) -> None:
    """Whatever is asked, in whatever order and on whatever clock, Lua and twin answer and end alike."""
    twin, now_ms, order = TwinStore(), START_MS, (0, 0)
    lua_store.client.flushall()
    lua_store.messages()
    for wanted in [Step("cb_configure", 0, ("o", "u1", 1, policy, resume)), *history]:
        breaker = twin.memory.breakers.get(KEY)
        now_ms += wanted.jump_ms
        step = wanted
        if wanted.function == "due":  # a tick at the very edge of what is due next
            instants = [breaker.open_until_ms, *breaker.live.values(), breaker.shadow.open_until_ms] if breaker else []
            ahead = [at for at in instants if at and at > now_ms]
            now_ms = (min(ahead) if ahead else now_ms) + wanted.jump_ms
            step = Step("cb_tick", 0)
        twin.set_clock(now_ms)
        lua_store.set_clock(now_ms)
        for _ in range(step.times):
            sent = command(step, order)
            assert answer(twin, *sent) == answer(lua_store, *sent), sent
        observed = answer(twin, "FCALL_RO", "cb_observe", 1, KEY, 256)
        assert observed == answer(lua_store, "FCALL_RO", "cb_observe", 1, KEY, 256), step
        breaker = twin.memory.breakers.get(KEY)
        assert leases_of(breaker) == dict(lua_store.client.zrange(f"{KEY}:probes", 0, -1, withscores=True))
        assert reporters_of(breaker) == reporters_in(lua_store)
        if breaker is not None and isinstance(breaker.window, CountWindow):
            assert letters_of(breaker) == letters_in(lua_store, breaker.window.size)
        assert twin.states(Keys()) == lua_store.states(Keys())
        assert twin.messages() == lua_store.messages()
        order = (observed["incarnation"], observed["generation"]) if isinstance(observed, dict) else (0, 0)
