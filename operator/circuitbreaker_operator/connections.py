"""The servers behind the settings: one Redis, the primary that the sentinels name, or the primaries of a Cluster.

`locate` asks who serves; a command then goes to the one that has the slot of its key. Each server has a plain client,
all made alike, so timeouts, retries, TLS and credentials are the same everywhere. redis-py's own clients for Sentinel
and Cluster are not used: their pools fail where ours waits for a connection, and the one for Cluster asks a server
which argument of an FCALL is the key, one round trip for each call.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from ssl import TLSVersion
from typing import Any, Final, NamedTuple

from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from circuitbreaker_contract.errors import CircuitBreakerError, ContractError
from circuitbreaker_operator.errors import StoreRefusedError, StoreUnavailableError
from circuitbreaker_operator.redis_settings import Address, endpoint
from circuitbreaker_operator.settings import Settings

Command = tuple[str | int, ...]

MISSING_FUNCTION: Final = "Function not found"
_REDIRECTIONS: Final = 5  # as Redis' own tools do before they give up
_TRANSIENT = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, MasterDownError, ClusterDownError, OSError)
# Error replies that pass by themselves: a script that runs too long, a replica that is being promoted.
_TRANSIENT_WORDS = ("BUSY ", "LOADING", "TRYAGAIN", "NOREPLICAS", "MISCONF")


class PasswordFile(CredentialProvider):
    """The password from a file, read anew for each connection so that it may be changed while we run."""

    def __init__(self, path: Path, user: str | None) -> None:
        self._path = path
        self._user = user

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            password = self._path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RedisConnectionError(f"the password cannot be read from {self._path}: {error}") from error
        return (self._user, password) if self._user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()  # a file of some bytes, in memory where it is a mounted Secret


class Login(NamedTuple):
    """As whom to connect; the password itself, or the file that has it."""

    user: str | None
    password: str | None
    file: Path | None


class Servers(ABC):
    """The primaries. Only `locate` finds them, so it comes first; whatever fails, fails with redis-py's errors."""

    def __init__(self, settings: Settings, *, connections: int, retries: int) -> None:
        where = endpoint(settings)
        login = Login(where.user, where.password, settings.redis_password_file)
        self._options = _options(settings, login, database=where.database, connections=connections, retries=retries)
        self._clients: dict[Address, Redis] = {}

    async def locate(self) -> frozenset[Address]:
        """Asks who the primaries are; connections to others are closed."""
        found = await self._find()
        for address in self._clients.keys() - found:
            await _close(self._clients.pop(address))
        return found

    def client(self, address: Address) -> Redis:
        """The client of one server, which stays ours to close."""
        if address not in self._clients:
            self._clients[address] = _client(address, self._options)
        return self._clients[address]

    async def at(self, address: Address, *command: str | int) -> Any:
        """The reply of one server."""
        return await self.client(address).execute_command(*command)  # type: ignore[no-untyped-call]

    async def send(self, *command: str | int) -> Any:
        """The reply of the server that has the command's key."""
        (reply,) = await self.pipeline([command])
        if isinstance(reply, Exception):
            raise reply
        return reply

    @abstractmethod
    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The replies in order, an error reply as the exception that redis-py makes of it."""

    async def aclose(self) -> None:
        while self._clients:
            await _close(self._clients.popitem()[1])

    @abstractmethod
    async def _find(self) -> frozenset[Address]: ...

    async def _piped(self, address: Address, commands: Sequence[Command]) -> list[Any]:
        pipeline = self.client(address).pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)


class Standalone(Servers):
    """One server, at the address that the settings have."""

    def __init__(self, settings: Settings, *, connections: int, retries: int) -> None:
        super().__init__(settings, connections=connections, retries=retries)
        self._address = endpoint(settings).address

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        return await self._piped(self._address, commands)

    async def _find(self) -> frozenset[Address]:
        return frozenset({self._address})


class OfSentinels(Servers):
    """The primary that the sentinels name. They are asked at once, and who saw the latest fail-over is believed."""

    def __init__(self, settings: Settings, *, connections: int, retries: int) -> None:
        super().__init__(settings, connections=connections, retries=retries)
        login = Login(settings.redis_sentinel_user or None, None, settings.redis_sentinel_password_file)
        options = _options(settings, login, database=0, connections=1, retries=0)
        self._name = settings.redis_sentinel_master
        self._sentinels = [_client(address, options) for address in settings.redis_sentinel]
        self._primary: Address | None = None

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        if self._primary is None:
            raise RedisConnectionError("the sentinels have not been asked yet")
        return await self._piped(self._primary, commands)

    async def aclose(self) -> None:
        await super().aclose()
        for each in self._sentinels:
            await _close(each)

    async def _find(self) -> frozenset[Address]:
        asked = (each.execute_command("SENTINEL", "MASTER", self._name) for each in self._sentinels)  # type: ignore[no-untyped-call]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        known = [_named(each) for each in answers if isinstance(each, list)]
        if not known:
            # An error reply tells more than a connection that fails: a name that is wrong, a password.
            errors = [each for each in answers if isinstance(each, Exception)]
            errors.sort(key=lambda error: not isinstance(error, ResponseError | AuthenticationError))
            kind = next((each for each in (AuthenticationError, ResponseError) if isinstance(errors[0], each)), None)
            raise (kind or RedisConnectionError)(f"no sentinel tells of a primary: {errors[0]}") from errors[0]
        latest = max(known, key=lambda each: int(each.get("config-epoch", 0)))
        self._primary = Address(latest["ip"], int(latest["port"]))
        return frozenset({self._primary})


class OfCluster(Servers):
    """The primaries of a Redis Cluster. `CLUSTER SLOTS` says who has which slot, a redirection corrects it."""

    def __init__(self, settings: Settings, *, connections: int, retries: int) -> None:
        super().__init__(settings, connections=connections, retries=retries)
        self._entry = endpoint(settings).address
        self._owners: list[Address] = []  # of each slot
        self._primaries: frozenset[Address] = frozenset()
        self._turn = 0

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        if not self._owners:
            raise RedisConnectionError("the nodes of the Cluster are not known yet")
        slots = [key_slot(_key(command).encode()) for command in commands]
        replies: list[Any] = [None] * len(commands)
        waiting = [(number, self._owners[slot], False) for number, slot in enumerate(slots)]
        for _ in range(1 + _REDIRECTIONS):
            await self._exchange(commands, waiting, replies)
            redirected = []
            for number, asked, _asking in waiting:
                reply = replies[number]
                if isinstance(reply, AskError):  # a MovedError is one too
                    target = Address(reply.host or asked.host, int(reply.port))
                    if isinstance(reply, MovedError):
                        self._owners[slots[number]] = target
                    redirected.append((number, target, not isinstance(reply, MovedError)))
            if not redirected:
                return replies
            waiting = redirected
        raise RedisConnectionError("the Cluster is moving slots, and redirects without an end")

    async def _exchange(
        self, commands: Sequence[Command], waiting: Sequence[tuple[int, Address, bool]], replies: list[Any]
    ) -> None:
        """Sends each of (number, to whom, whether it has to be asked for) and puts its reply in its place."""
        by_node: defaultdict[Address, list[tuple[int, Command]]] = defaultdict(list)
        for number, address, asking in waiting:
            if asking:
                by_node[address].append((-1, ("ASKING",)))
            by_node[address].append((number, commands[number]))
        sent = (self._piped(address, [command for _, command in some]) for address, some in by_node.items())
        answers = await asyncio.gather(*sent, return_exceptions=True)
        for some, answer in zip(by_node.values(), answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            for (number, _), reply in zip(some, answer, strict=True):
                if number >= 0:
                    replies[number] = reply

    async def _find(self) -> frozenset[Address]:
        """Asks the nodes in turn, since one that is cut off knows the past; then the name in the settings.

        All nodes may have other addresses by now, and that name is what leads to them.
        """
        failed: Exception | None = None
        self._turn += 1
        known = sorted(self._primaries)
        first = self._turn % len(known) if known else 0
        for address in (*known[first:], *known[:first], self._entry):
            try:
                ranges = await self.at(address, "CLUSTER", "SLOTS")
                self._owners = _owners(ranges, asked=address)
            except (RedisError, OSError) as error:
                failed = error
                heed_cancellation()
                continue
            self._primaries = frozenset(self._owners)
            return self._primaries
        assert failed is not None
        raise failed


def open_servers(settings: Settings, *, connections: int, retries: int = 2) -> Servers:
    """What the settings say, every timeout set: `connections` at most to each server. Nothing is sent yet."""
    kind = OfSentinels if settings.redis_sentinel else OfCluster if settings.redis_cluster else Standalone
    return kind(settings, connections=connections, retries=retries)


def translated(error: BaseException) -> CircuitBreakerError:
    """Our error for one of redis-py."""
    text = str(error) or type(error).__name__
    if isinstance(error, AuthenticationError | AuthorizationError):
        return StoreUnavailableError(f"Redis refuses the login: {text}")
    if isinstance(error, MovedError):
        return StoreRefusedError("this is a node of a Redis Cluster; set CB_REDIS_CLUSTER=true")
    if "cluster support disabled" in text:
        return StoreRefusedError("this is no Redis Cluster; leave CB_REDIS_CLUSTER out")
    if isinstance(error, _TRANSIENT) or text.startswith(_TRANSIENT_WORDS):
        return StoreUnavailableError(text)
    if isinstance(error, ResponseError):
        found = ContractError.from_reply(text)
        if found is not None:
            return found
        if MISSING_FUNCTION in text:
            return StoreUnavailableError("the function library is gone")
    return StoreRefusedError(text)


def heed_cancellation() -> None:
    """Raises CancelledError when this task was asked to end: seen lost inside redis-py while Redis did not answer."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _client(address: Address, options: dict[str, Any]) -> Redis:
    pool = BlockingConnectionPool(host=address.host, port=address.port, **options)
    return Redis.from_pool(pool)  # closed together with the client


def _options(settings: Settings, login: Login, *, database: int, connections: int, retries: int) -> dict[str, Any]:
    """How a pool connects."""
    seconds = settings.redis_timeout_ms / 1000
    options: dict[str, Any] = {
        "db": database,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "socket_keepalive": True,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries),
        "health_check_interval": 0,
        "protocol": 2,  # one shape of replies from every server; and in it a PONG to a subscriber is a message
        "client_name": "circuitbreaker-operator",
        "max_connections": connections,
        "timeout": seconds,  # how long a caller waits for a connection of the pool
    }
    if login.file is not None:
        options["credential_provider"] = PasswordFile(login.file, login.user)
    else:
        options |= {"username": login.user, "password": login.password}
    if endpoint(settings).tls:
        options |= {
            "connection_class": SSLConnection,
            "ssl_cert_reqs": "none" if settings.redis_verify == "none" else "required",
            "ssl_check_hostname": settings.redis_verify == "full",
            "ssl_ca_certs": _path(settings.redis_ca_file),
            "ssl_certfile": _path(settings.redis_cert_file),
            "ssl_keyfile": _path(settings.redis_key_file),
            "ssl_min_version": TLSVersion.TLSv1_2,
        }
    return options


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _key(command: Command) -> str:
    """The first key: FCALL names a function and how many keys there are before it."""
    return str(command[3] if command[0] in {"FCALL", "FCALL_RO"} else command[1])


def _owners(ranges: Any, *, asked: Address) -> list[Address]:
    """Who has each slot, from the reply to CLUSTER SLOTS; raises ClusterDownError when a slot is nobody's."""
    owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, primary, *_ in ranges:
        host, port = primary[:2]
        address = Address(host.decode() if host else asked.host, int(port))  # empty: the one that was asked
        owners[int(first) : int(last) + 1] = [address] * (int(last) + 1 - int(first))
    if None in owners:
        raise ClusterDownError("not every slot of the Cluster is served")
    return [each for each in owners if each is not None]


def _named(reply: list[bytes]) -> dict[str, str]:
    words = [each.decode() for each in reply]
    return dict(zip(words[::2], words[1::2], strict=False))


async def _close(client: Redis) -> None:
    with suppress(RedisError, OSError):
        await client.aclose()
