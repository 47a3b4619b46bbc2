"""Redis, for the commands that need it: reached as the operator reaches it, by CB_REDIS_URL and its companions.

Only functions that write nothing are called, so the user `viewer` of contract/acl/users.acl is enough.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pydantic import SecretStr
from redis.exceptions import RedisError

from circuitbreaker_cli.errors import CommandError
from circuitbreaker_cli.words import safe
from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import CircuitBreakerError
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import Snapshot
from circuitbreaker_operator.connections import translated
from circuitbreaker_operator.errors import SettingsError
from circuitbreaker_operator.servers import Servers, open_servers
from circuitbreaker_operator.settings import Settings

T = TypeVar("T")
NEEDED = "set CB_REDIS_URL or say --redis-url redis://host:6379/0 (a port-forward will do)"


def is_given(redis_url: str) -> bool:
    """Whether anybody said where Redis is."""
    return bool(redis_url or os.environ.get("CB_REDIS_URL") or os.environ.get("CB_REDIS_SENTINEL"))


def observe(redis_url: str, namespace: str, name: str, *, history: int = 0) -> Snapshot:
    """The breaker as Redis has it now; raises CommandError."""

    async def ask(servers: Servers, settings: Settings) -> Snapshot:
        key = settings.keys.breaker(BreakerKey(namespace, name))
        call = protocol.observe(key, history=history)
        return call.read(await servers.send(*call.command()))

    return asked(redis_url, ask)


def asked(redis_url: str, ask: Callable[[Servers, Settings], Coroutine[Any, Any, T]]) -> T:
    """What `ask` finds out there; raises CommandError."""
    if not is_given(redis_url):
        raise CommandError(f"this needs Redis; {NEEDED}")
    try:
        settings = Settings.load(**({"redis_url": SecretStr(redis_url)} if redis_url else {}))
    except SettingsError as error:
        raise CommandError(f"the settings of Redis cannot be:\n{error}") from error
    try:
        return asyncio.run(_with_servers(settings, ask))
    except (RedisError, OSError) as error:
        raise CommandError(f"Redis: {safe(translated(error))}") from error
    except (CircuitBreakerError, ValueError) as error:
        raise CommandError(f"Redis: {safe(error)}") from error


async def _with_servers(settings: Settings, ask: Callable[[Servers, Settings], Coroutine[Any, Any, T]]) -> T:
    servers = open_servers(settings, connections=2, retries=0)
    try:
        await servers.locate()
        return await ask(servers, settings)
    finally:
        await servers.aclose()
