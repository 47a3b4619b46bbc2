"""What may happen during a soak, how often, and for how long. The faults are those of tests/chaos."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from random import Random

from tests.chaos import faults
from tests.chaos.faults import STOP_SECONDS
from tests.chaos.stage import CLIENTS, LATE_SECONDS, Stage, Ways
from tests.relay import Relay

Do = Callable[[Stage], AbstractContextManager[None]]
BRIEF = CLIENTS[2]  # the client that dies and comes back; the others live as long as the soak


@dataclass(frozen=True)
class Fault:
    """`weight`: how often it comes beside the others; `most_seconds`: how long it may last."""

    name: str
    do: Do
    weight: float = 1.0
    most_seconds: float = 20.0


def _slow(way: Callable[[Ways], Relay | None]) -> Do:
    @contextmanager
    def do(stage: Stage) -> Iterator[None]:
        relay = _there(way(stage.ways))
        relay.delay_seconds = LATE_SECONDS
        try:
            yield
        finally:
            relay.delay_seconds = 0.0

    return do


def _half_open(way: Callable[[Ways], Relay | None]) -> Do:
    @contextmanager
    def do(stage: Stage) -> Iterator[None]:
        relay = _there(way(stage.ways))
        relay.swallow()
        try:
            yield
        finally:
            relay.heal()

    return do


def _there(relay: Relay | None) -> Relay:
    assert relay is not None
    return relay


def _operator_to_api(ways: Ways) -> Relay | None:
    return ways.operator_to_api


def _operator_to_redis(ways: Ways) -> Relay | None:
    return ways.operator_to_redis


def _clients_to_redis(ways: Ways) -> Relay | None:
    return ways.clients_to_redis


def _brief(stage: Stage) -> int:
    return max(number for number, each in enumerate(stage.clients) if each.name == BRIEF)


def _again(stage: Stage) -> None:
    del stage.clients[_brief(stage)]
    stage.start_client(BRIEF)


@contextmanager
def _client_killed(stage: Stage) -> Iterator[None]:
    stage.clients[_brief(stage)].process.kill()
    yield
    _again(stage)


@contextmanager
def _client_paused(stage: Stage) -> Iterator[None]:
    process = stage.clients[_brief(stage)].process
    process.pause()
    try:
        yield
    finally:
        process.resume()


@contextmanager
def _client_restarted(stage: Stage) -> Iterator[None]:
    stage.clients[_brief(stage)].process.stop(STOP_SECONDS)
    _again(stage)
    yield


# The operator dies seldom: its memory is to be followed over long stretches.
FAULTS = (
    Fault("API server: stop", faults.api_server_stopped),
    Fault("API server: kill", faults.api_server_killed),
    Fault("API server: pause", faults.api_server_paused),
    Fault("API server: restart", faults.api_server_restarted),
    Fault("API server: slow", _slow(_operator_to_api), 2.0, 40.0),
    Fault("API server: half-open", _half_open(_operator_to_api), 2.0, 40.0),
    Fault("API server: wrong credentials", faults.token_refused, 0.5),
    Fault("etcd: kill", faults.etcd_killed),
    Fault("etcd: pause", faults.etcd_paused),
    Fault("etcd: restart", faults.etcd_restarted),
    Fault("etcd: full disk", faults.etcd_full),
    Fault("Redis: stop", faults.redis_stopped),
    Fault("Redis: kill", faults.redis_killed),
    Fault("Redis: pause", faults.redis_paused),
    Fault("Redis: restart", faults.redis_restarted),
    Fault("Redis: empty", faults.redis_emptied, 0.5),
    Fault("Redis: slow for the operator", _slow(_operator_to_redis), 1.0, 40.0),
    Fault("Redis: slow for clients", _slow(_clients_to_redis), 1.0, 40.0),
    Fault("Redis: half-open for the operator", _half_open(_operator_to_redis), 1.0, 40.0),
    Fault("Redis: half-open for clients", _half_open(_clients_to_redis), 1.0, 40.0),
    Fault("Redis: wrong credentials", faults.logins_refused),
    Fault("Redis: out of memory", faults.memory_full),
    Fault("Redis: full disk", faults.disk_full),
    Fault("operator: pause", faults.operator_paused, 0.7),
    Fault("operator: kill", faults.operator_killed, 0.1),
    Fault("operator: restart", faults.operator_restarted, 0.1),
    Fault("client: kill", _client_killed),
    Fault("client: pause", _client_paused),
    Fault("client: restart", _client_restarted),
)


_DEATHS = {"operator: kill", "operator: restart"}


def first_round(chance: Random) -> list[tuple[Fault, float]]:
    """Each once and as long as it may last, but for the operator's deaths: what a burst needs of memory is taken early.

    Left to chance the worst one may come late, and what an allocator keeps of it looks like growth.
    """
    lasting = [(each, each.most_seconds) for each in FAULTS if each.name not in _DEATHS]
    return chance.sample(lasting, len(lasting))


def chosen(chance: Random, *, operator_may_die: bool) -> tuple[Fault, float]:
    """The next one, and how many seconds it lasts."""
    there = [each for each in FAULTS if operator_may_die or each.name not in _DEATHS]
    fault = chance.choices(there, [each.weight for each in there])[0]
    return fault, round(chance.uniform(3.0, fault.most_seconds), 1)
