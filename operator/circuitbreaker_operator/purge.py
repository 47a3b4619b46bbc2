"""Removes what one installation keeps in Redis: its owner's keys and marks, and fields in the shared hash of states."""

import asyncio
from dataclasses import dataclass

from redis.exceptions import RedisError

from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import UnknownBreakerError
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import Snapshot
from circuitbreaker_operator.cluster import Cluster
from circuitbreaker_operator.credentials import Credentials
from circuitbreaker_operator.errors import (
    ClusterRefusedError,
    ClusterUnavailableError,
    SettingsError,
    StoreUnavailableError,
)
from circuitbreaker_operator.metrics import Metrics
from circuitbreaker_operator.servers import open_servers
from circuitbreaker_operator.settings import Settings
from circuitbreaker_operator.store import Store


@dataclass(frozen=True, slots=True)
class Found:
    """Breakers under the prefix: the owner's with their uids, how many are others', and what cannot be read."""

    mine: tuple[tuple[BreakerKey, str], ...]
    others: int
    unreadable: tuple[BreakerKey, ...]


async def owner_of(settings: Settings) -> str:
    """CB_OWNER, else the uid of kube-system. Raises SettingsError when neither can be had: nothing is guessed here."""
    if settings.owner:
        return settings.owner
    advice = "CB_OWNER: set it to whose breakers are to be removed"
    credentials = Credentials()
    try:
        cluster = Cluster(credentials, await credentials.client(), waits=False)
    except SettingsError as error:
        raise SettingsError(f"{advice} ({error})") from error
    try:
        return await cluster.namespace_uid("kube-system")
    except (ClusterUnavailableError, ClusterRefusedError) as error:
        raise SettingsError(f"{advice}; the API server does not say ({error})") from error
    finally:
        await cluster.close()


async def open_store(settings: Settings) -> tuple[Store, asyncio.Task[None]]:
    """A store that is up, and the task that keeps it so. Raises StoreUnavailableError."""
    store = Store(settings, Metrics())
    task = asyncio.create_task(store.run())
    try:
        async with asyncio.timeout(3 * settings.redis_timeout_ms / 1000 + 1):
            await store.up.wait()
    except TimeoutError:
        task.cancel()
        await store.close()
        raise StoreUnavailableError(f"Redis at {settings.redis_address} does not answer; check CB_REDIS_URL") from None
    return store, task


async def listeners(settings: Settings) -> int:
    """How many hear the shared channel, as an operator does; 0 when Redis does not say."""
    servers = open_servers(settings, connections=1)
    try:
        found = [
            await servers.at(address, "PUBSUB", "NUMSUB", settings.keys.updates) for address in await servers.locate()
        ]
        return sum(int(count) for _, count in found)
    except (RedisError, OSError, TimeoutError, ValueError):
        return 0
    finally:
        await servers.aclose()


async def find(store: Store, settings: Settings, owner: str) -> Found:
    """What is there. Reads only."""
    keys = sorted({key async for key in store.breakers()})
    answers = await store.in_batches([protocol.observe(settings.keys.breaker(key)) for key in keys])
    mine, others, unreadable = [], 0, []
    for key, answer in zip(keys, answers, strict=True):
        if isinstance(answer, Snapshot):
            if answer.owner == owner:
                mine.append((key, answer.uid))
            else:
                others += 1
        elif not isinstance(answer, UnknownBreakerError):
            unreadable.append(key)
    return Found(tuple(mine), others, tuple(unreadable))


async def remove(store: Store, settings: Settings, owner: str, found: Found) -> int:
    """Removes the owner's breakers, and fields of the shared hash that belong to no breaker; says how many breakers."""
    calls = [protocol.delete(settings.keys.breaker(key), owner=owner, uid=uid) for key, uid in found.mine]
    removed = sum(answer is True for answer in await store.in_batches(calls))
    await store.hide_states(key for key, _ in found.mine)
    await store.unmark_deferred(owner, await store.deferred(owner))
    return removed
