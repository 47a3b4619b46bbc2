"""Redis, as the operator uses it: calls of the contract in pipelines, the library, and a few reads for the sweep.

Every call may be sent twice: `cb_configure` and `cb_delete` compare before they write, `cb_tick` does only what is due,
`cb_reset` carries a token, the rest reads. So redis-py may repeat what got no answer.

While Redis cannot serve, `up` is closed, calls fail at once, and one probe asks with growing pauses until it answers;
the library is put in place on every primary before `up` opens again. `look` asks the same questions while all is well:
a primary that was added or promoted, or another Redis behind the same name, shows by its run id. Errors of redis-py
become ours here and go no further.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

from redis.exceptions import NoPermissionError, RedisError

from circuitbreaker_contract import library, protocol
from circuitbreaker_contract.errors import CircuitBreakerError, ContractError, VersionError
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.protocol import Call, ReplyError, Version
from circuitbreaker_operator.connections import IS_CLUSTER, MISSING_FUNCTION, heed_cancellation, translated
from circuitbreaker_operator.errors import StoreRefusedError, StoreUnavailableError
from circuitbreaker_operator.logs import Outage
from circuitbreaker_operator.metrics import Metrics, Stopwatch
from circuitbreaker_operator.redis_settings import Address
from circuitbreaker_operator.servers import open_servers
from circuitbreaker_operator.settings import Settings

T = TypeVar("T")

logger = logging.getLogger(__name__)

BATCH: Final = 100  # calls in one pipeline: some milliseconds of Redis' time
_CONNECTIONS: Final = 8
_SCAN_COUNT: Final = 1_000
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 2.0
_SOUND_SECONDS: Final = 10.0  # for so long it has served: the next outage is another one
_SECTIONS: Final = ("server", "memory", "replication", "cluster")


class Store:
    """The one way to Redis. `run` keeps it up; `up` says whether it is. `check` may forbid what would be sent."""

    def __init__(self, settings: Settings, metrics: Metrics, *, check: Callable[[], None] = lambda: None) -> None:
        self._settings = settings
        self._check = check
        self._keys = settings.keys
        self._metrics = metrics
        self._servers = open_servers(settings, connections=_CONNECTIONS)
        self._down = asyncio.Event()
        self._down.set()
        self._outage = Outage(logger, f"Redis at {settings.redis_address}")
        self._policy_seen = ""
        self._runs: frozenset[str] = frozenset()  # the run ids of the primaries
        self.primaries: frozenset[Address] = frozenset()
        self._together: dict[str, list[tuple[Call[Any], asyncio.Future[Any]]]] = {}  # by function, of one loop turn
        self._sending: set[asyncio.Task[None]] = set()
        self.up = asyncio.Event()
        self.latency_seconds: float | None = None
        self.returned: list[Callable[[], None]] = []  # told when Redis can be used again, and when it is another one

    @property
    def outage_seconds(self) -> float:
        """For how long Redis has been away; 0.0 while it is there."""
        return self._outage.seconds

    async def run(self) -> None:
        """Probes whenever Redis is away, until cancelled.

        It may answer the probe and not what is wanted of it (a node of a Cluster that serves no key yet): then it is
        away soon after, again and again, and is probed less and less often.
        """
        loop = asyncio.get_running_loop()
        up_at, pause = float("-inf"), _FIRST_PAUSE_SECONDS
        while True:
            await self._down.wait()
            if loop.time() - up_at >= _SOUND_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            else:
                await asyncio.sleep(pause)
                pause = _longer(pause)
            pause = await _until(self.probe, pause)
            up_at = loop.time()
            self._down.clear()
            self.up.set()
            self._metrics.redis_up.set(1)
            self._tell()

    async def reach(self) -> None:
        """Waits until every primary has answered, and keeps no connection; for a standby, which sends nothing else."""
        await _until(self._answers, _FIRST_PAUSE_SECONDS)

    async def _answers(self) -> bool:
        try:
            for address in await _ours(self._servers.locate()):
                await _ours(self._servers.at(address, "PING"))
        except CircuitBreakerError as error:
            self._outage.failed(error, remedy=_remedy(str(error)), meanwhile="not ready before it has answered once")
            return False
        finally:
            await self._servers.renew()
        self._outage.recovered()
        return True

    async def close(self) -> None:
        for task in self._sending:
            task.cancel()
        await self._servers.aclose()

    async def probe(self) -> bool:
        """Whether Redis answers and holds the library; loads it when that is what is missing."""
        try:
            await self._examine()
        except StoreUnavailableError as error:
            self._outage.failed(error, remedy=_remedy(str(error)), meanwhile="waiting for it")
            await self._servers.renew()
        except (StoreRefusedError, ContractError, ReplyError) as error:
            self._outage.failed(error, remedy="the operator waits until that is put right")
        else:
            self._outage.recovered()
            return True
        return False

    async def look(self) -> None:
        """Asks an idle Redis, which would not say that it went away, and tells when another one serves.

        Raises what `probe` makes an answer of; StoreUnavailableError has then closed `up`.
        """
        if self.up.is_set() and await self._examine() and self.up.is_set():
            logger.info("another Redis serves, all breakers are looked at", extra={"primaries": self._places()})
            self._tell()

    async def call(self, call: Call[T]) -> T:
        """The answer to one call; raises its error. Calls of one turn of the loop go to Redis together."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        if not self._together:
            loop.call_soon(self._send_together)
        self._together.setdefault(call.function, []).append((call, answer))
        return await answer

    def _send_together(self) -> None:
        waiting, self._together = self._together, {}
        for some in waiting.values():
            for first in range(0, len(some), BATCH):
                task = asyncio.get_running_loop().create_task(self._answer(some[first : first + BATCH]))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    async def _answer(self, waiting: Sequence[tuple[Call[Any], asyncio.Future[Any]]]) -> None:
        """Gives each call of `waiting` what Redis says to it."""
        answers: Sequence[Any]
        try:
            answers = await self.batch([call for call, _ in waiting])
        except Exception as error:  # noqa: BLE001 # whatever it is, those who asked are told
            answers = [error] * len(waiting)
        for (_, future), answer in zip(waiting, answers, strict=True):
            if future.done():  # nobody waits any more
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def batch(self, calls: Sequence[Call[T]]) -> list[T | CircuitBreakerError]:
        """The answers in order, an error in the place of a call that failed. Raises StoreUnavailableError for all."""
        if not self.up.is_set():
            raise StoreUnavailableError("Redis is away")
        if not calls:
            return []
        watch = Stopwatch()
        try:
            replies = await self._guarded(self._servers.pipeline([call.command() for call in calls]))
        except StoreRefusedError as error:
            if len(calls) == 1:
                return [error]
            return [answer for call in calls for answer in await self.batch([call])]  # who of them it was
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

    async def breakers(self) -> AsyncIterator[BreakerKey]:
        """Every breaker that has a hash under our prefix, on any primary, whoever owns it. A key may come twice."""
        for address in self.primaries:
            cursor = 0
            while True:
                scan = self._servers.at(
                    address, "SCAN", cursor, "MATCH", self._keys.breakers_pattern, "COUNT", _SCAN_COUNT
                )
                cursor, found = await self._guarded(scan)
                for raw in found:
                    if (key := self._keys.parse(_text(raw))) is not None:
                        yield key
                if not cursor:
                    break

    def shown_states(self) -> AsyncIterator[tuple[str, str]]:
        """The fields of the shared hash of states, with what they say. A field may come twice."""
        return self._fields(self._keys.states)

    async def _fields(self, key: str) -> AsyncIterator[tuple[str, str]]:
        cursor = 0
        while True:
            scan = self._servers.send("HSCAN", key, cursor, "COUNT", _SCAN_COUNT)
            cursor, found = await self._guarded(scan)
            for field, value in found.items():
                yield _text(field), _text(value)
            if not cursor:
                return

    async def show_states(self, states: Mapping[BreakerKey, str]) -> None:
        """Writes fields of the shared hash, which the functions do not where it is the operator's work."""
        words = [word for key, state in states.items() for word in (str(key), state)]
        await self._guarded(self._servers.send("HSET", self._keys.states, *words))

    async def hide_states(self, keys: Iterable[BreakerKey]) -> int:
        """Removes the fields of breakers that do not exist from the shared hash; says how many there were.

        Asked again just before: a breaker that was made meanwhile keeps its field (and a tick would put it back).
        """
        count = 0
        for key in keys:
            if not await self._guarded(self._servers.send("EXISTS", self._keys.breaker(key))):
                count += await self._guarded(self._servers.send("HDEL", self._keys.states, str(key)))
        return count

    async def deferred(self, owner: str) -> dict[frozenset[str], int]:
        """From which incarnation on breakers of the owner may be untold: by the namespaces of an installation.

        No namespace stands for all of them. Raises StoreRefusedError.
        """
        found = {}
        async for field, value in self._fields(self._keys.deferred):
            whose, *namespaces = field.split(" ")
            if whose == owner and re.fullmatch(r"[0-9]{1,15}", value):
                found[frozenset(namespaces)] = int(value)
        return found

    async def mark_deferred(self, owner: str, namespaces: frozenset[str], incarnation: int) -> None:
        """Breakers of that incarnation and later ones may be untold from now on. Raises StoreRefusedError."""
        field = _installation(owner, namespaces)
        await self._guarded(self._servers.send("HSET", self._keys.deferred, field, incarnation))

    async def unmark_deferred(self, owner: str, installations: Iterable[frozenset[str]]) -> None:
        """All are told. Raises StoreRefusedError."""
        fields = [_installation(owner, namespaces) for namespaces in installations]
        if fields:
            await self._guarded(self._servers.send("HDEL", self._keys.deferred, *fields))

    def _tell(self) -> None:
        for tell in self.returned:
            tell()

    def _places(self) -> str:
        return ", ".join(sorted(map(str, self.primaries)))

    async def _guarded(self, answer: Awaitable[T]) -> T:
        """The answer; an outage closes `up`."""
        self._check()
        try:
            return await _ours(answer)
        except StoreUnavailableError as error:
            self._lost(error)
            raise

    def _lost(self, error: StoreUnavailableError) -> None:
        if self.up.is_set():
            effect = "clients go on with what they know, the operator waits"
            self._outage.failed(error, remedy=_remedy(str(error)), meanwhile=effect)
            self.up.clear()
            self._down.set()
            self._metrics.redis_up.set(0)

    async def _examine(self) -> bool:
        """Finds the primaries, puts the library on each; True when they are others than before. Raises our errors."""
        try:
            primaries = await _ours(self._servers.locate())
            infos = [await self._examine_one(address) for address in sorted(primaries)]
        except StoreUnavailableError as error:
            self._lost(error)
            raise
        for address in sorted(self._servers.idle):
            with suppress(CircuitBreakerError):  # nothing depends on it yet, and it is asked again in a moment
                await self._put_library_in_place(address)
        self._look_at_memory_policy({str(info.get("maxmemory_policy", "noeviction")) for info in infos})
        self._metrics.redis_memory.set(max(map(_used_ratio, infos), default=0.0))
        runs = frozenset(str(info.get("run_id", "")) for info in infos)
        others = bool(self._runs) and runs != self._runs
        self._runs, self.primaries = runs, primaries
        return others

    async def _examine_one(self, address: Address) -> Mapping[str, Any]:
        """What a primary says of itself."""
        watch = Stopwatch()
        await self._put_library_in_place(address)
        self.latency_seconds = watch.seconds
        try:
            info = await _ours(self._servers.at(address, "INFO", *_SECTIONS))
        except StoreRefusedError as error:
            info = {"maxmemory_policy": f"unknown: {error}"}
        if info.get("cluster_enabled") and not self._settings.redis_cluster:
            raise StoreRefusedError(IS_CLUSTER)
        if info.get("role", "master") != "master":
            raise StoreUnavailableError(f"{address} is a replica and takes no writes")
        await self._see_that_it_writes(address)
        return cast("Mapping[str, Any]", info)

    async def _put_library_in_place(self, address: Address) -> None:
        found = await self._version(address)
        if not library.should_load(found):
            return
        self._check()
        try:
            await _ours(self._servers.at(address, "FUNCTION", "LOAD", "REPLACE", library.source()))
        except StoreRefusedError as error:
            if isinstance(error.__cause__, NoPermissionError):
                text = "the user of CB_REDIS_URL may not load the function library: grant it +function|load"
                raise StoreRefusedError(text) from error
            raise
        replaced = found.digest if found else ""
        extra = {"at": address, "version": library.VERSION, "digest": library.digest(), "replaced": replaced}
        logger.info("loaded the function library", extra=extra)

    async def _see_that_it_writes(self, address: Address) -> None:
        """With a full disk, or without its replicas, Redis reads and writes nothing; a tick of no breaker tells.

        Without it such a server would be away and back again with each call.
        """
        with suppress(ContractError, StoreRefusedError):  # of the function: so it was let in
            await _ours(self._servers.at(address, "FCALL", "cb_tick", 0))

    async def _version(self, address: Address) -> Version | None:
        """The library there; None when there is none."""
        call = protocol.version()
        try:
            return call.read(await _ours(self._servers.at(address, *call.command())))
        except StoreUnavailableError as error:
            if MISSING_FUNCTION not in str(error.__cause__):
                raise
            return None
        except StoreRefusedError as error:
            if "unknown command" in str(error):
                raise VersionError("this server has no functions; Redis 7.0 or Valkey 7.2 is needed") from error
            raise

    def _look_at_memory_policy(self, policies: set[str]) -> None:
        """Says once, and again when it changed, that Redis may throw breakers away."""
        policy = ", ".join(sorted(policies - {"noeviction"})) or "noeviction"
        if policy.startswith("unknown"):
            text = "cannot see maxmemory-policy: grant +info, or make sure that it is noeviction"
        else:
            text = f"maxmemory-policy is {policy}: Redis may throw breakers away when memory is short; set noeviction"
        if policy not in {"noeviction", self._policy_seen}:
            logger.warning("%s", text)
        self._policy_seen = policy


def _used_ratio(info: Mapping[str, Any]) -> float:
    """Used memory of the most that there may be; 0.0 where there is no limit, or it is not said."""
    used, most = info.get("used_memory"), info.get("maxmemory")
    return used / most if isinstance(used, int) and isinstance(most, int) and most > 0 else 0.0


def _installation(owner: str, namespaces: frozenset[str]) -> str:
    return " ".join((owner, *sorted(namespaces)))


def _remedy(cause: str) -> str:
    """What a person should look at first when Redis cannot be had."""
    if "no sentinel" in cause:
        return "check CB_REDIS_SENTINEL, CB_REDIS_SENTINEL_MASTER and the login there"
    if "login" in cause or "password" in cause:
        return "check the user in CB_REDIS_URL and CB_REDIS_PASSWORD_FILE"
    if "SSL" in cause or "CERTIFICATE" in cause:
        return "check CB_REDIS_CA_FILE, CB_REDIS_CERT_FILE and CB_REDIS_VERIFY"
    if "MISCONF" in cause:
        return "make room on the disk of Redis, whose own log says more"
    if "NOREPLICAS" in cause:
        return "check the replicas of Redis, or its min-replicas-to-write"
    return "check CB_REDIS_URL and that Redis runs"


async def _ours(answer: Awaitable[T]) -> T:
    """The answer, or our error for redis-py's."""
    try:
        got = await answer
    except (RedisError, OSError) as error:
        heed_cancellation()
        raise translated(error) from error
    except ValueError as error:
        # Of the reader of its connection, which is closed with it: an error reply is a line, and one that quotes what
        # somebody wrote into a hash may be longer than a line may be.
        raise StoreRefusedError(f"an answer that cannot be read: {error}") from error
    heed_cancellation()
    return got


def _text(raw: bytes | str) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw


async def _until(works: Callable[[], Awaitable[bool]], pause_seconds: float) -> float:
    """Tries until it works, after pauses that grow; the next pause."""
    while not await works():
        await asyncio.sleep(pause_seconds)
        pause_seconds = _longer(pause_seconds)
    return pause_seconds


def _longer(pause_seconds: float) -> float:
    return min(pause_seconds * 1.6, _LONGEST_PAUSE_SECONDS)
