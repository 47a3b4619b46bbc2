"""Events that were put off, with a real Redis for their mark: whoever is in their way, each is told, and in time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import redis

from circuitbreaker_contract.keys import BreakerKey, Keys
from circuitbreaker_local.redis_server import RedisServer
from circuitbreaker_operator.cache import Cache
from circuitbreaker_operator.deferred import MANY, QUIET_SECONDS, Deferred
from circuitbreaker_operator.errors import ClusterUnavailableError, EventsUnavailableError, StoreUnavailableError
from circuitbreaker_operator.events import Event
from circuitbreaker_operator.metrics import Metrics
from circuitbreaker_operator.resource import Resource
from circuitbreaker_operator.settings import Settings
from circuitbreaker_operator.store import Store

MARKS = Keys().deferred
FIRST = 1_800_000_000_000  # an incarnation


def an_event(number: int, *, uid: str = "u", namespace: str = "shop") -> Event:
    key = BreakerKey(namespace, f"b{number}")
    return Event(key, uid, f"b{number}.{uid}.x.r1", "Normal", "PolicyApplied", "failureThreshold 5", FIRST)


def a_resource(number: int, *, incarnation: int = FIRST, reason: str = "Created") -> Resource:
    metadata = {"namespace": "shop", "name": f"b{number}", "uid": "u", "generation": 1, "resourceVersion": "7"}
    status = {"incarnation": incarnation, "stateGeneration": 1, "reason": reason, "observedGeneration": 1}
    status |= {"since": "2027-01-15T08:00:00.000Z", "policy": {"failureThreshold": 5}}
    return Resource.of({"metadata": metadata, "spec": {}, "status": status})


@dataclass
class Api:
    """Where Events go; `refuses` says which of them cannot be posted now."""

    told: list[Event] = field(default_factory=list)
    refuses: Callable[[Event], Exception | None] = lambda _: None

    async def post(self, event: Event, *, waits: bool) -> None:
        if (error := self.refuses(event)) is not None:
            if waits or not isinstance(error, EventsUnavailableError):
                raise error
            return
        self.told.append(event)

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.told]


class Leader:
    """One operator's part."""

    def __init__(self, server: RedisServer, api: Api, *, namespaces: str = "", resources: int = 0) -> None:
        self.store = Store(Settings.load(redis_url=server.url, namespaces=namespaces), Metrics())
        self.cache = Cache()
        for number in range(resources):
            self.cache.put(a_resource(number))
        queue = Metrics().queue("events")
        settings = Settings.load(redis_url=server.url, namespaces=namespaces)
        self.deferred = Deferred(settings, self.store, self.cache, owner="me", post=api.post, queue=queue)
        self.task: asyncio.Task[None] | None = None

    async def start(self, *, compared: bool = True) -> "Leader":
        self.store.returned.append(self.deferred.mark_again)
        self.up = asyncio.create_task(self.store.run())
        self.task = asyncio.create_task(self.deferred.run())
        await self.store.up.wait()
        if compared:
            self.deferred.compared()
        return self

    async def stop(self) -> None:
        """As a crash: nothing is tidied up."""
        for task in (self.task, self.up):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
                assert task.cancelled(), task
        await self.store.close()

    def takes(self, number: int, *, waiting: int = MANY, incarnation: int = FIRST, uid: str = "u") -> bool:
        return self.deferred.takes(an_event(number, uid=uid), incarnation, waiting=waiting)

    async def burst(self, numbers: range, incarnation: int = FIRST) -> None:
        """So many are put off, once the first one asked for the mark."""
        await until(lambda: self.takes(numbers[0], incarnation=incarnation), "the mark")
        assert all(self.takes(number, incarnation=incarnation) for number in numbers)


async def until(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def client(redis_server: RedisServer) -> "redis.Redis":
    return redis.Redis.from_url(redis_server.url, decode_responses=True)


@pytest.fixture
async def leaders(redis_server: RedisServer, api: Api) -> AsyncIterator[Callable[..., Leader]]:
    made: list[Leader] = []

    def make(**named: object) -> Leader:
        made.append(Leader(redis_server, api, **named))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for leader in made:
        if leader.task is not None and not leader.task.cancelled():
            await leader.stop()


async def test_a_burst_and_what_comes_alone_after_it(leaders, api: Api, client) -> None:
    leader = await leaders().start()
    assert not leader.takes(0, waiting=MANY - 1), "few"
    await leader.burst(range(100))
    assert client.hgetall(MARKS) == {"me": str(FIRST)}
    assert leader.takes(100, waiting=0), "the last ones of the burst"
    assert not leader.takes(101, incarnation=FIRST - 1), "made before the mark"
    assert not leader.takes(0, uid="another"), "another resource of that name"
    assert api.told == []
    alone = range(200, 400)
    for number in alone:  # one now and then does not keep the others waiting, and does not wait
        leader.takes(number, waiting=0)
        await asyncio.sleep(QUIET_SECONDS / 100)
    assert len(api.told) >= 101
    await until(lambda: not client.hgetall(MARKS), "the mark to go")
    assert not leader.takes(alone[-1] + 1, waiting=0)
    assert api.names == [an_event(number).name for number in [*range(101), *alone]][: len(api.told)]
    assert len(set(api.names)) == len(api.told) >= 101


async def test_who_cannot_be_told_of_is_in_nobodys_way(leaders, api: Api, client) -> None:
    """A webhook that fails in one namespace; and Events that cannot be written at all are not dropped."""
    leader = await leaders().start()
    bad = {an_event(number).name for number in range(12)}
    api.refuses = lambda event: ClusterUnavailableError("500") if event.name in bad else None
    await leader.burst(range(60))
    await until(lambda: len(api.told) == 48, "all others")
    assert client.hgetall(MARKS)
    api.refuses = lambda _: EventsUnavailableError("only Events")
    leader.deferred.hurry()
    await asyncio.sleep(0.1)
    assert client.hgetall(MARKS)
    api.refuses = lambda _: None
    leader.deferred.hurry()
    await until(lambda: not client.hgetall(MARKS), "the mark to go")
    assert sorted(api.names) == sorted(an_event(number).name for number in range(60))


async def test_namespaces_where_events_are_taken_do_not_wait_for_others(leaders, api: Api, client) -> None:
    """However many are held of one where they are not: it is asked once in a turn."""
    asked = []

    def refuses(event: Event) -> Exception | None:
        if event.key.namespace != "shop":
            return None
        asked.append(event.name)
        return EventsUnavailableError("503")

    api.refuses = refuses
    leader = await leaders().start()
    await leader.burst(range(30))
    others = [an_event(number, namespace="bank") for number in range(30)]
    for event in others:
        assert leader.deferred.takes(event, FIRST, waiting=MANY)
    await until(lambda: len(api.told) == len(others), "those of the other namespace")
    assert len(asked) <= 8, "once in four at a time, and again in the next turn"
    api.refuses = lambda _: None
    await until(lambda: len(api.told) == len(others) + 30, "all of them")


async def test_a_later_leader_tells_all_and_first_what_moved(leaders, api: Api, client) -> None:
    """Its namespaces may be others, as long as they are some of the same; marks of other installations stay."""
    first = await leaders(namespaces="shop").start()
    client.hset(MARKS, mapping={"me bank": 5, "you shop": 6})
    await first.burst(range(70))
    await first.stop()
    assert client.hgetall(MARKS) == {"me shop": str(FIRST), "me bank": "5", "you shop": "6"}
    second = await leaders(namespaces="shop,tools", resources=70).start(compared=False)
    moved = a_resource(3)
    await second.deferred.tell_now(moved)
    assert [(each.key.name, each.reason) for each in api.told] == [("b3", "PolicyApplied")]
    await second.deferred.tell_now(a_resource(4, reason="ConsecutiveFailures"))
    await second.deferred.tell_now(a_resource(5, incarnation=FIRST - 1))
    assert len(api.told) == 1
    second.deferred.compared()
    await until(lambda: client.hgetall(MARKS) == {"me bank": "5", "you shop": "6"}, "the mark to go")
    assert {each.key.name for each in api.told} == {f"b{number}" for number in range(70)}


async def test_a_mark_that_was_left_is_never_made_later(leaders, api: Api, client) -> None:
    client.hset(MARKS, "me", FIRST)
    leader = await leaders(resources=3).start(compared=False)
    await leader.burst(range(100, 110), incarnation=FIRST + 5)
    assert client.hgetall(MARKS) == {"me": str(FIRST)}
    leader.deferred.compared()
    await until(lambda: not client.hgetall(MARKS), "the mark to go")
    assert {each.key.name for each in api.told} == {f"b{number}" for number in (0, 1, 2, *range(100, 110))}


async def test_an_emptied_redis_is_marked_again(leaders, api: Api, client) -> None:
    leader = await leaders().start()
    api.refuses = lambda _: ClusterUnavailableError("away")
    await leader.burst(range(10))
    client.flushall()
    leader.deferred.mark_again()
    assert not leader.takes(0), "what waits without a mark is told now"
    await until(lambda: client.hgetall(MARKS) == {"me": str(FIRST)}, "the mark")
    assert leader.takes(0)


async def test_without_redis_they_are_told_all_the_same(leaders, api: Api, redis_server: RedisServer, client) -> None:
    leader = await leaders().start()
    await leader.burst(range(10))
    redis_server.kill()
    with suppress(StoreUnavailableError):
        await leader.store.look()
    assert not leader.store.up.is_set()
    await until(lambda: len(api.told) == 10, "all")
    redis_server.start()
    await until(leader.store.up.is_set, "Redis")
    await until(lambda: not client.hgetall(MARKS), "the mark to go")


async def test_a_key_of_another_kind_puts_nothing_off(leaders, api: Api, client) -> None:
    client.set(MARKS, "nonsense")
    leader = await leaders().start()
    async with asyncio.timeout(5):
        await leader.deferred.tell_now(a_resource(1))
    for _ in range(3):
        assert not leader.takes(1)
        await asyncio.sleep(0)
    assert (api.told, client.get(MARKS), leader.task.done()) == ([], "nonsense", False)
