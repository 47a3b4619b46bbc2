"""Every breaker that is measured, by name: how its users would set it up, protecting the same function.

Thresholds are alike (5 failures in a row, or half of at least 5 calls where a library knows rates only), and an opening
lasts an hour, so that nothing recovers while it is measured. What Redis client a library is given has that client's
defaults, as in the library's own documentation.
"""

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import aiobreaker
import circuitbreaker
import interlock
import purgatory
import pybreaker
import redis
from aiobreaker.state import CircuitBreakerState as AiobreakerState
from aiobreaker.storage.redis import CircuitRedisStorage as AiobreakerRedisStorage
from interlock.integrations.redis import AsyncRedisStorage, RedisStorage
from purgatory.domain.model import OpenedState

from circuitbreaker_client import (
    AsyncCircuitBreakers,
    CallNotPermittedError,
    CircuitBreakers,
    Event,
    Policy,
    State,
    StateChanged,
)
from circuitbreaker_client.settings import Options
from circuitbreaker_contract import library, protocol

THRESHOLD = 5
HOUR_SECONDS = 3600


class BackendError(Exception):
    """What the protected function raises when it fails."""


def charge(amount: int) -> int:
    """The protected function: as little as can fail."""
    if amount < 0:
        raise BackendError
    return amount


async def charge_async(amount: int) -> int:
    """The same for asyncio; it never waits, so that only the breaker is seen."""
    if amount < 0:
        raise BackendError
    return amount


@dataclass(frozen=True)
class Protected:
    """The function under a breaker, what a refusal raises, and how to end what the library started."""

    call: Callable[[int], Any]
    refusal: type[BaseException]
    close: Callable[[], Any] = lambda: None
    on_open: Callable[[Callable[[], None]], None] | None = None  # tells when this process learns that it is Open
    leave: Callable[[], Any] | None = (
        None  # where one breaker more costs nothing: what to do before the next; else close
    )


@dataclass(frozen=True)
class Contender:
    """One library in one form. `pace_ms`: how often a process calls while it waits for an opening to arrive."""

    library: str
    store: str  # "memory" or "Redis"
    is_async: bool
    build: Callable[[str, str], Protected]  # the breaker's name and the URL of Redis; in the loop when async
    form: str = ""  # how the call is protected, where it is not the decorator: looked at for what a call costs alone
    pace_ms: float = 10.0  # with a round trip a call, 50 processes that call more often would measure their own crowd

    @property
    def name(self) -> str:
        return ", ".join(filter(None, [self.library, self.store, self.form, "async" * self.is_async]))


# --- pybreaker: sync only (its call_async is for Tornado)


def _pybreaker(name: str, url: str) -> Protected:
    storage = None
    if url:
        storage = pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, redis.Redis.from_url(url), namespace=name)
    breaker = pybreaker.CircuitBreaker(fail_max=THRESHOLD, reset_timeout=HOUR_SECONDS, state_storage=storage, name=name)
    return Protected(breaker(charge), pybreaker.CircuitBreakerError)


# --- aiobreaker: its storage for Redis takes a client that blocks, in async code too


def _aiobreaker(function: Callable[[int], Any], name: str, url: str) -> Protected:
    storage = None
    if url:
        storage = AiobreakerRedisStorage(AiobreakerState.CLOSED, redis.Redis.from_url(url), namespace=name)
    hour = dt.timedelta(seconds=HOUR_SECONDS)
    breaker = aiobreaker.CircuitBreaker(fail_max=THRESHOLD, timeout_duration=hour, state_storage=storage, name=name)
    return Protected(breaker(function), aiobreaker.CircuitBreakerError)


# --- purgatory: with Redis in its async form only (3.0.1's sync one makes an asyncio client and never awaits it)


def _purgatory(name: str, _url: str) -> Protected:
    factory = purgatory.SyncCircuitBreakerFactory(default_threshold=THRESHOLD, default_ttl=HOUR_SECONDS)
    return Protected(factory(name)(charge), OpenedState)


def _purgatory_async(name: str, url: str) -> Protected:
    uow = purgatory.AsyncRedisUnitOfWork(url) if url else None
    factory = purgatory.AsyncCircuitBreakerFactory(default_threshold=THRESHOLD, default_ttl=HOUR_SECONDS, uow=uow)
    close = uow.contexts.redis.aclose if uow else (lambda: None)
    return Protected(factory(name)(charge_async), OpenedState, close)


# --- circuitbreaker (fabfuel): in memory only


def _fabfuel(function: Callable[[int], Any], name: str) -> Protected:
    breaker = circuitbreaker.CircuitBreaker(failure_threshold=THRESHOLD, recovery_timeout=HOUR_SECONDS, name=name)
    return Protected(breaker(function), circuitbreaker.CircuitBreakerError)


# --- interlock-cb: rates only; it times every call


def _interlock(name: str, url: str) -> Protected:
    config = interlock.Config(minimum_number_of_calls=THRESHOLD, wait_duration_in_open=HOUR_SECONDS)
    storage = RedisStorage(redis.Redis.from_url(url)) if url else None
    breaker = interlock.CircuitBreaker(name=name, config=config, storage=storage)
    return Protected(breaker(charge), interlock.CircuitOpenError, breaker.close)


def _interlock_async(name: str, url: str) -> Protected:
    config = interlock.Config(minimum_number_of_calls=THRESHOLD, wait_duration_in_open=HOUR_SECONDS)
    client = redis.asyncio.Redis.from_url(url) if url else None
    storage = AsyncRedisStorage(client) if client else None
    breaker = interlock.CircuitBreaker(name=name, config=config, storage=storage)

    async def close() -> None:
        await breaker.aclose()
        if client:
            await client.aclose()

    return Protected(breaker(charge_async), interlock.CircuitOpenError, close)


# --- ours: the state in Redis, and a policy with a slow-call rule, so that every call is timed for a reason

POLICY = Policy(
    failure_threshold=THRESHOLD,
    recovery_timeout_ms=HOUR_SECONDS * 1000,
    half_open_limit=3,
    success_threshold=3,
    probe_timeout_ms=30_000,
    slow_call_duration_ms=1_000,
    slow_call_rate_percent=100,
)


def define(url: str, names: Iterable[str]) -> None:
    """What an operator does beforehand: the library, and breakers for ours."""
    with redis.Redis.from_url(url) as client:
        client.function_load(library.source(), replace=True)
        for name in names:
            call = protocol.configure(f"cb:{{bench/{name}}}", owner="env", uid="env", generation=1, policy=POLICY)
            client.fcall(call.function, len(call.keys), *call.keys, *call.args)


class Doorbell:
    """An event hook that rings for the one breaker that is watched."""

    def __init__(self) -> None:
        self.rings: dict[str, Callable[[], None]] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, StateChanged) and event.state is State.OPEN and event.breaker in self.rings:
            self.rings.pop(event.breaker)()


@cache
def _our_breakers(url: str) -> tuple[CircuitBreakers, Doorbell]:
    """One for the process, as a service would have."""
    bell = Doorbell()
    options = Options(namespace="bench", policy=POLICY, define_missing=bool(url), state_sync=bool(url))
    if url:
        options["redis_url"] = url
    return CircuitBreakers(on_event=bell, **options), bell


def _ours(name: str, url: str) -> Protected:
    breakers, bell = _our_breakers(url)

    def on_open(ring: Callable[[], None]) -> None:
        bell.rings[f"bench/{name}"] = ring

    def close() -> None:
        _our_breakers.cache_clear()
        breakers.close()

    return Protected(breakers[name](charge), CallNotPermittedError, close, on_open if url else None, leave=lambda: None)


def _ours_by_call(name: str, url: str) -> Protected:
    breaker = _our_breakers(url)[0][name]
    return replace(_ours(name, url), call=lambda amount: breaker.call(charge, amount))


def _ours_by_permit(name: str, url: str) -> Protected:
    breaker = _our_breakers(url)[0][name]

    def call(amount: int) -> int:
        with breaker.permit():
            return charge(amount)

    return replace(_ours(name, url), call=call)


def _ours_async(name: str, url: str) -> Protected:
    options = Options(namespace="bench", policy=POLICY, define_missing=bool(url), state_sync=bool(url))
    if url:
        options["redis_url"] = url
    breakers = AsyncCircuitBreakers(**options)
    return Protected(breakers[name](charge_async), CallNotPermittedError, breakers.close)


ALL = [
    Contender("ours", "memory", False, _ours),
    Contender("ours", "Redis", False, _ours),
    Contender("ours", "Redis", False, _ours_by_call, form="call"),
    Contender("ours", "Redis", False, _ours_by_permit, form="permit"),
    Contender("ours", "memory", True, _ours_async),
    Contender("ours", "Redis", True, _ours_async),
    Contender("pybreaker", "memory", False, _pybreaker),
    Contender("pybreaker", "Redis", False, _pybreaker),
    Contender("aiobreaker", "memory", False, lambda name, url: _aiobreaker(charge, name, url)),
    Contender("aiobreaker", "Redis", False, lambda name, url: _aiobreaker(charge, name, url)),
    Contender("aiobreaker", "memory", True, lambda name, url: _aiobreaker(charge_async, name, url)),
    Contender("aiobreaker", "Redis", True, lambda name, url: _aiobreaker(charge_async, name, url)),
    Contender("purgatory", "memory", False, _purgatory),
    Contender("purgatory", "memory", True, _purgatory_async),
    Contender("purgatory", "Redis", True, _purgatory_async),
    Contender("fabfuel", "memory", False, lambda name, _: _fabfuel(charge, name)),
    Contender("fabfuel", "memory", True, lambda name, _: _fabfuel(charge_async, name)),
    Contender("interlock", "memory", False, _interlock),
    Contender("interlock", "Redis", False, _interlock, pace_ms=5.0),
    Contender("interlock", "memory", True, _interlock_async),
    Contender("interlock", "Redis", True, _interlock_async, pace_ms=5.0),
]
CONTENDERS = {each.name: each for each in ALL}
