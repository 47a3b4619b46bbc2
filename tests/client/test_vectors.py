"""The client for threads and the one for asyncio tell the story of contract/vectors, as far as a client can.

Left out of the comparison: `reporters` (a client reports refusals that it gives by itself, so Redis sees a process that
a scenario's caller, which asks each time, does not show), `leaseMs` (a client does not keep it), and the jitter of
retryAfterMs while slots are full: it comes from who asks and when, and a client may have asked earlier.
"""

import asyncio
from collections import Counter
from types import SimpleNamespace

import pytest

from circuitbreaker_client import AsyncCircuitBreakers, CircuitBreakers
from circuitbreaker_client._acquiring import acquire, acquire_async
from circuitbreaker_conformance import Scenario, load
from circuitbreaker_conformance.playing import BREAKER, expected_after, played
from tests.client.player import ClientStore, NotPlayableError, clocked, why_not

SCENARIOS = load()
JITTERED_MS = 250
PLAYABLE = [scenario for scenario in SCENARIOS if not why_not(scenario)]


def sync_client(url: str) -> SimpleNamespace:
    breakers = CircuitBreakers(redis_url=url, namespace=BREAKER.namespace, redis_timeout_seconds=2)
    core = breakers[BREAKER.name]._core
    return SimpleNamespace(core=core, acquire=lambda: acquire(core), flush=breakers.flush, close=breakers.close)


def async_client(url: str) -> SimpleNamespace:
    breakers = AsyncCircuitBreakers(redis_url=url, namespace=BREAKER.namespace, redis_timeout_seconds=2)
    core = breakers[BREAKER.name]._core
    return SimpleNamespace(
        core=core,
        acquire=lambda: asyncio.run(acquire_async(core)),
        flush=lambda: asyncio.run(breakers.flush()),
        close=lambda: asyncio.run(breakers.close()),
    )


@pytest.mark.parametrize("make", [sync_client, async_client], ids=["sync", "async"])
@pytest.mark.parametrize("scenario", PLAYABLE, ids=str)
def test_scenario(scenario: Scenario, make, lua_store, shared_redis, monkeypatch) -> None:
    store = ClientStore(lua_store, lambda _name: make(shared_redis.url))
    with clocked(store, monkeypatch):
        expected = None
        try:
            for number, step, seen in played(scenario, store):
                expected = expected_after(expected, step)
                where = f"step {number}: {step}"
                assert seen.error == step.get("error"), where
                for name, value in step.get("reply", {}).items():
                    if name == "retryAfterMs" and seen.state["state"] == "HalfOpen" and value:
                        assert 0 < seen.reply[name] <= JITTERED_MS, where
                    elif name != "leaseMs":
                        assert seen.reply.get(name) == value, f"{where}: {name}"
                if seen.standing is not None:
                    assert seen.standing == seen.stored, where
                assert _told(seen.state) == _told(expected), where
        except NotPlayableError as reason:
            pytest.skip(str(reason))


def _told(state):
    return state and {name: value for name, value in state.items() if name != "reporters"}


def test_what_a_client_cannot_play_is_known() -> None:
    """Most of it is played; a group of which little is left would say so here."""
    left = Counter(scenario.group for scenario in PLAYABLE)
    assert len(PLAYABLE) >= 150
    assert set(left) == {scenario.group for scenario in SCENARIOS}, left
