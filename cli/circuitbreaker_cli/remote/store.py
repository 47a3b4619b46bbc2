"""Redis, for the commands that need it: reached as the operator reaches it, by CB_REDIS_URL and its companions.

redis-py and pydantic come with it, half a second of a start, so commands import it where they turn to Redis.
Only functions that write nothing are called, so the user `viewer` of contract/acl/users.acl is enough.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import SecretStr
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from circuitbreaker_cli.errors import CommandError, Exit
from circuitbreaker_cli.remote.redis_url import NEEDED, is_given
from circuitbreaker_cli.words import safe
from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import CircuitBreakerError, ContractError, UnknownBreakerError
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.protocol import Call, ReplyError
from circuitbreaker_contract.state import Snapshot
from circuitbreaker_operator.connections import translated
from circuitbreaker_operator.errors import SettingsError
from circuitbreaker_operator.servers import Servers, open_servers
from circuitbreaker_operator.settings import Settings

T = TypeVar("T")


def observe(redis_url: str, namespace: str, name: str, *, history: int = 0) -> Snapshot:
    """The breaker as Redis has it now; raises CommandError."""

    async def ask(servers: Servers, settings: Settings) -> Snapshot:
        key = settings.keys.breaker(BreakerKey(namespace, name))
        call = protocol.observe(key, history=history)
        return call.read(await servers.send(*call.command()))

    return asked(redis_url, ask)


@dataclass(frozen=True, slots=True)
class Reader:
    """Redis, for a while."""

    servers: Servers
    settings: Settings

    async def observe(self, names: Sequence[tuple[str, str]]) -> list[Snapshot | None]:
        """(namespace, name) each, as they are now; None for what Redis has not. Raises CommandError."""
        calls = [protocol.observe(self.settings.keys.breaker(BreakerKey(*each))) for each in names]
        with _told():
            await self.servers.locate()
            replies = await self.servers.pipeline([each.command() for each in calls]) if calls else []
            for each in replies:
                if isinstance(each, Exception) and not isinstance(translated(each), ContractError):
                    raise each
            return [_read(call, reply) for call, reply in zip(calls, replies, strict=True)]


@asynccontextmanager
async def reader(redis_url: str) -> AsyncIterator[Reader]:
    """Connects with the first question; raises CommandError for settings that cannot be."""
    settings = _settings(redis_url)
    servers = open_servers(settings, connections=2, retries=0)
    try:
        yield Reader(servers, settings)
    finally:
        await servers.aclose()


def _read(call: Call[Snapshot], reply: Any) -> Snapshot | None:
    """None also for one whose keys are damaged: the others can still be told."""
    try:
        return None if isinstance(reply, Exception) else call.read(reply)
    except ReplyError:
        return None


def asked(redis_url: str, ask: Callable[[Servers, Settings], Coroutine[Any, Any, T]]) -> T:
    """What `ask` finds out there; raises CommandError."""
    settings = _settings(redis_url)
    with _told():
        return asyncio.run(_with_servers(settings, ask))


def _settings(redis_url: str) -> Settings:
    if not is_given(redis_url):
        raise CommandError(f"this needs Redis; {NEEDED}")
    try:
        return Settings.load(**({"redis_url": SecretStr(redis_url)} if redis_url else {}))
    except SettingsError as error:
        raise CommandError(f"the settings of Redis cannot be:\n{error}", Exit.USAGE) from error


@contextmanager
def _told() -> Iterator[None]:
    """What Redis, or the way to it, says against it, as a CommandError."""
    try:
        yield
    except (RedisError, OSError) as error:
        found = translated(error)
        text = safe(found)
        if isinstance(found, UnknownBreakerError):
            text += "\nthe operator has not put it in force there, or uses another Redis or CB_KEY_PREFIX"
        away = isinstance(error, RedisConnectionError | RedisTimeoutError | OSError)
        start = "" if text.startswith("Redis ") else "Redis cannot be reached: " if away else "Redis: "
        raise CommandError(start + text) from error
    except (CircuitBreakerError, ValueError) as error:
        raise CommandError(f"Redis: {safe(error)}") from error


async def _with_servers(settings: Settings, ask: Callable[[Servers, Settings], Coroutine[Any, Any, T]]) -> T:
    servers = open_servers(settings, connections=2, retries=0)
    try:
        await servers.locate()
        return await ask(servers, settings)
    finally:
        await servers.aclose()
