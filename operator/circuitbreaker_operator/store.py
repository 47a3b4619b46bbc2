"""Redis, as the operator uses it: calls of the contract in pipelines, the library, and a few reads for the sweep.

Every call may be sent twice: `cb_configure` and `cb_delete` compare before they write, `cb_tick` does only what is due,
`cb_reset` carries a token, the rest reads. So redis-py may repeat what got no answer.

While Redis cannot serve, `up` is closed, calls fail at once, and one probe asks with growing pauses until it answers;
the library is put in place before `up` opens again. Errors of redis-py become ours here and go no further.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from urllib.parse import unquote, urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from circuitbreaker_contract import library, protocol
from circuitbreaker_contract.errors import CircuitBreakerError, ContractError, VersionError
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.protocol import Call, ReplyError, Version
from circuitbreaker_operator.errors import StoreRefusedError, StoreUnavailableError
from circuitbreaker_operator.logs import Outage
from circuitbreaker_operator.metrics import Metrics, Stopwatch
from circuitbreaker_operator.settings import Settings

T = TypeVar("T")

logger = logging.getLogger(__name__)

BATCH: Final = 100  # calls in one pipeline: some milliseconds of Redis' time
_CONNECTIONS: Final = 8
_SCAN_COUNT: Final = 1_000
_MISSING_FUNCTION = "Function not found"
_TRANSIENT = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, MasterDownError, ClusterDownError, OSError)
# Error replies that pass by themselves: a script that runs too long, a replica that is being promoted.
_TRANSIENT_WORDS = ("BUSY ", "LOADING", "TRYAGAIN", "NOREPLICAS", "MISCONF")


class PasswordFile(CredentialProvider):
    """The password from a file, read anew for each connection so that it may be changed while we run."""

    def __init__(self, path: Path, user: str | None) -> None:
        self._path = path
        self._user = user

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._path.read_text(encoding="utf-8").strip()
        return (self._user, password) if self._user else (password,)


def connect(settings: Settings, *, connections: int, retries: int = 2) -> Redis:
    """A client with its own pool, every timeout set. Nothing is sent yet."""
    url = settings.redis_url.get_secret_value()
    seconds = settings.redis_timeout_ms / 1000
    options: dict[str, Any] = {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries),
        "health_check_interval": 0,
        "protocol": 2,  # one shape of replies from every server; and in it a PONG to a subscriber is a message
        "client_name": "circuitbreaker-operator",
        "max_connections": connections,
        "timeout": seconds,
    }
    if settings.redis_password_file is not None:
        parts = urlsplit(url)
        user = unquote(parts.username) if parts.username else None
        options["credential_provider"] = PasswordFile(settings.redis_password_file, user)
        url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
    pool = BlockingConnectionPool.from_url(url, **options)
    return Redis.from_pool(pool)  # closed together with the client


def translated(error: BaseException) -> CircuitBreakerError:
    """Our error for one of redis-py."""
    text = str(error) or type(error).__name__
    if isinstance(error, AuthenticationError | AuthorizationError):
        return StoreUnavailableError(f"Redis refuses the login: {text}")
    if isinstance(error, _TRANSIENT) or text.startswith(_TRANSIENT_WORDS):
        return StoreUnavailableError(text)
    if isinstance(error, ResponseError):
        found = ContractError.from_reply(text)
        if found is not None:
            return found
        if _MISSING_FUNCTION in text:
            return StoreUnavailableError("the function library is gone")
    return StoreRefusedError(text)


class Store:
    """The one way to Redis. `run` keeps it up; `up` says whether it is."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._keys = settings.keys
        self._metrics = metrics
        self._redis = connect(settings, connections=_CONNECTIONS)
        self._down = asyncio.Event()
        self._down.set()
        self._outage = Outage(logger, f"Redis at {settings.redis_address}")
        self._policy_seen = ""
        self.up = asyncio.Event()
        self.latency_seconds: float | None = None
        self.returned: list[Callable[[], None]] = []  # told each time that Redis can be used again

    @property
    def outage_seconds(self) -> float:
        """For how long Redis has been away; 0.0 while it is there."""
        return self._outage.seconds

    async def run(self) -> None:
        """Probes whenever Redis is away, until cancelled."""
        while True:
            await self._down.wait()
            pause = 0.1
            while not await self.probe():
                await asyncio.sleep(pause)
                pause = min(pause * 1.6, 2.0)
            self._down.clear()
            self.up.set()
            self._metrics.redis_up.set(1)
            for tell in self.returned:
                tell()

    async def close(self) -> None:
        with suppress(RedisError, OSError):
            await self._redis.aclose()

    async def probe(self) -> bool:
        """Whether Redis answers and holds the library; loads it when that is what is missing."""
        try:
            await self._put_library_in_place()
            await self._look_at_memory_policy()
        except StoreUnavailableError as error:
            self._outage.failed(error, remedy="check CB_REDIS_URL and that Redis runs; waiting for it")
        except (StoreRefusedError, ContractError, ReplyError) as error:
            self._outage.failed(error, remedy="the operator waits until that is put right")
        else:
            self._outage.recovered()
            return True
        return False

    async def call(self, call: Call[T]) -> T:
        """The answer to one call; raises its error."""
        (answer,) = await self.batch([call])
        if isinstance(answer, CircuitBreakerError):
            raise answer
        return answer

    async def batch(self, calls: Sequence[Call[T]]) -> list[T | CircuitBreakerError]:
        """The answers in order, an error in the place of a call that failed. Raises StoreUnavailableError for all."""
        if not self.up.is_set():
            raise StoreUnavailableError("Redis is away")
        if not calls:
            return []
        watch = Stopwatch()
        replies = await self._pipeline([call.command() for call in calls])
        self.latency_seconds = watch.seconds
        self._metrics.redis_seconds.labels(calls[0].function).observe(watch.seconds)
        answers: list[T | CircuitBreakerError] = []
        for call, reply in zip(calls, replies, strict=True):
            if isinstance(reply, BaseException):
                refused = translated(reply)
                if isinstance(refused, StoreUnavailableError):
                    self._lost(refused)
                    raise refused from reply
                answers.append(refused)
                continue
            try:
                answers.append(call.read(reply))
            except ReplyError as error:
                answers.append(error)
        return answers

    async def in_batches(self, calls: Sequence[Call[T]]) -> list[T | CircuitBreakerError]:
        """`batch` for any number of calls."""
        answers: list[T | CircuitBreakerError] = []
        for first in range(0, len(calls), BATCH):
            some = await self.batch(calls[first : first + BATCH])
            answers.extend(some)
        return answers

    async def ping(self) -> None:
        """One round trip; raises StoreUnavailableError."""
        watch = Stopwatch()
        await self._guarded(self._redis.execute_command("PING"))  # type: ignore[no-untyped-call]
        self.latency_seconds = watch.seconds

    async def breakers(self) -> AsyncIterator[BreakerKey]:
        """Every breaker that has a hash under our prefix, whoever owns it. A key may come twice."""
        cursor: int | bytes = 0
        while True:
            cursor, found = await self._guarded(
                self._redis.scan(cursor, match=self._keys.breakers_pattern, count=_SCAN_COUNT)  # type: ignore[arg-type]
            )
            for raw in found:
                if (key := self._keys.parse(_text(raw))) is not None:
                    yield key
            if not int(cursor):
                return

    async def shown_states(self) -> AsyncIterator[str]:
        """The fields of the shared hash of states."""
        cursor = 0
        while True:
            cursor, found = await self._guarded(self._redis.hscan(self._keys.states, cursor, count=_SCAN_COUNT))
            for raw in found:
                yield _text(raw)
            if not int(cursor):
                return

    async def hide_states(self, keys: Iterable[BreakerKey]) -> int:
        """Removes the fields of breakers that do not exist from the shared hash; says how many there were.

        Asked again just before: a breaker that was made meanwhile keeps its field (and a tick would put it back).
        """
        count = 0
        for key in keys:
            if not await self._guarded(self._redis.exists(self._keys.breaker(key))):
                count += await self._guarded(self._redis.hdel(self._keys.states, str(key)))
        return count

    async def _pipeline(self, commands: Sequence[tuple[str | int, ...]]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await self._guarded(pipeline.execute(raise_on_error=False))

    async def _guarded(self, answer: Awaitable[T]) -> T:
        try:
            got = await answer
        except (RedisError, OSError) as error:
            heed_cancellation()
            ours = translated(error)
            if isinstance(ours, StoreUnavailableError):
                self._lost(ours)
            raise ours from error
        heed_cancellation()
        return got

    def _lost(self, error: StoreUnavailableError) -> None:
        if self.up.is_set():
            self._outage.failed(error, remedy="clients go on with what they know; the operator waits for Redis")
            self.up.clear()
            self._down.set()
            self._metrics.redis_up.set(0)

    async def _put_library_in_place(self) -> None:
        try:
            found: Version | None = await self._ask(protocol.version())
        except StoreUnavailableError as error:
            if _MISSING_FUNCTION not in str(error.__cause__):
                raise
            found = None
        except StoreRefusedError as error:
            if "unknown command" in str(error):
                raise VersionError("this server has no functions; Redis 7.0 or Valkey 7.2 is needed") from error
            raise
        if library.should_load(found):
            try:
                await self._guarded(
                    self._redis.execute_command("FUNCTION", "LOAD", "REPLACE", library.source())  # type: ignore[no-untyped-call]
                )
            except StoreRefusedError as error:
                if isinstance(error.__cause__, NoPermissionError):
                    text = "the user of CB_REDIS_URL may not load the function library: grant it +function|load"
                    raise StoreRefusedError(text) from error
                raise
            extra = {"version": library.VERSION, "digest": library.digest(), "replaced": found.digest if found else ""}
            logger.info("loaded the function library", extra=extra)

    async def _ask(self, call: Call[T]) -> T:
        return call.read(await self._guarded(self._redis.execute_command(*call.command())))  # type: ignore[no-untyped-call]

    async def _look_at_memory_policy(self) -> None:
        """Says once, and again when it changed, that Redis may throw breakers away."""
        try:
            info = cast("dict[str, Any]", await self._guarded(self._redis.info("memory")))
        except StoreRefusedError as error:
            policy = f"unknown: {error}"
            text = "cannot see maxmemory-policy: grant +info, or make sure that it is noeviction"
        else:
            policy = str(info.get("maxmemory_policy", "noeviction"))
            text = f"maxmemory-policy is {policy}: Redis may throw breakers away when memory is short; set noeviction"
        if policy not in {"noeviction", self._policy_seen}:
            logger.warning("%s", text)
        self._policy_seen = policy


def heed_cancellation() -> None:
    """Raises CancelledError when this task was asked to end: seen lost inside redis-py while Redis did not answer."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _text(raw: bytes | str) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw
