"""Redis for `doctor`: its clock, its library, the breakers it has, each asked by itself. Nothing is written.

The user `viewer` of contract/acl/users.acl is enough, so breakers without a resource are looked for in the shared hash
of states and not by SCAN, which that user may not, and which costs a large Redis more than a look is worth.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from redis.exceptions import RedisError

from circuitbreaker_cli import terminal
from circuitbreaker_cli.checks import installation
from circuitbreaker_cli.checks.findings import Answer
from circuitbreaker_cli.checks.installation import Clock, clock
from circuitbreaker_cli.checks.stuck import NOT_IN_REDIS, Seen
from circuitbreaker_cli.errors import CommandError
from circuitbreaker_cli.remote import store
from circuitbreaker_cli.words import safe
from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import CircuitBreakerError, UnknownBreakerError
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.protocol import Version
from circuitbreaker_contract.state import Snapshot
from circuitbreaker_operator.connections import MISSING_FUNCTION, translated
from circuitbreaker_operator.servers import Servers
from circuitbreaker_operator.settings import Settings

T = TypeVar("T")
_BATCH: Final = 100
_COUNT: Final = 1_000


@dataclass(frozen=True, slots=True)
class Survey:
    """What Redis said. `seen`: by full name, of the breakers that were asked for; `orphans`: owners by full name."""

    address: str
    clock: Answer[Clock]
    version: Answer[Version]
    seen: Mapping[str, Seen] = field(default_factory=dict)
    orphans: Answer[Mapping[str, str]] = field(default_factory=Answer)


def survey(redis_url: str, known: Collection[str], *, namespace: str) -> Survey:
    """Asks for the breakers `known` by full name, and for others in the namespace ("": in all). Raises CommandError."""

    async def ask(servers: Servers, settings: Settings) -> Survey:
        time = await _answer(_time, servers)
        if time.value is None:
            raise CommandError(time.why_not)  # when not even that is answered, nothing is
        version = await _answer(_version, servers)
        observe = {name: key for name in known if (key := _key(name)) is not None}
        seen = dict(zip(observe, await _observed(servers, settings, list(observe.values())), strict=True))
        orphans = await _answer(_orphans, servers, settings, known, namespace)
        return Survey(settings.redis_address, time, version, seen, orphans)

    return store.asked(redis_url, ask)


async def _answer(ask: Callable[..., Awaitable[T]], *arguments: Any) -> Answer[T]:
    try:
        return Answer(await ask(*arguments))
    except (RedisError, OSError) as error:
        why = installation.NO_LIBRARY if MISSING_FUNCTION in str(error) else safe(translated(error))
        return Answer(why_not=why)
    except (CircuitBreakerError, ValueError) as error:
        return Answer(why_not=safe(error))


async def _time(servers: Servers) -> Clock:
    (address, *_) = sorted(await servers.locate())
    await servers.at(address, "TIME")  # connects; that time is not Redis'
    before_ms = terminal.now_ms()
    seconds, micros = await servers.at(address, "TIME")
    told_ms = int(seconds) * 1_000 + int(micros) // 1_000
    return clock("Redis", told_ms=told_ms, before_ms=before_ms, after_ms=terminal.now_ms(), step_ms=1)


async def _version(servers: Servers) -> Version:
    call = protocol.version()
    (address, *_) = sorted(await servers.locate())
    return call.read(await servers.at(address, *call.command()))


async def _observed(servers: Servers, settings: Settings, keys: Sequence[BreakerKey]) -> list[Seen]:
    found: list[Seen] = []
    for first in range(0, len(keys), _BATCH):
        calls = [protocol.observe(settings.keys.breaker(key)) for key in keys[first : first + _BATCH]]
        replies = await servers.pipeline([call.command() for call in calls])
        found += [_seen(call, reply) for call, reply in zip(calls, replies, strict=True)]
    return found


def _seen(call: protocol.Call[Snapshot], reply: Any) -> Seen:
    if isinstance(reply, BaseException):
        error = translated(reply)
        return NOT_IN_REDIS if isinstance(error, UnknownBreakerError) else safe(error, 200)
    try:
        return call.read(reply)
    except CircuitBreakerError as error:
        return safe(error, 200)


async def _orphans(servers: Servers, settings: Settings, known: Collection[str], namespace: str) -> Mapping[str, str]:
    shown: dict[str, BreakerKey] = {}
    cursor = 0
    while True:
        cursor, fields = await servers.send("HSCAN", settings.keys.states, cursor, "COUNT", _COUNT)
        for raw in fields:
            key = _key(raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw))
            if key is not None and str(key) not in known and namespace in {"", key.namespace}:
                shown[str(key)] = key
        if not int(cursor):
            break
    seen = await _observed(servers, settings, list(shown.values()))
    return {name: each.owner if isinstance(each, Snapshot) else "" for name, each in zip(shown, seen, strict=True)}


def _key(name: str) -> BreakerKey | None:
    with suppress(ValueError):
        return BreakerKey.parse(name)
    return None
