"""The servers behind the settings: one Redis, the primary that the sentinels name, or the primaries of a Cluster.

`locate` asks who serves; a command then goes to the one that has the slot of its key. Each server has a plain client,
all made alike, so timeouts, retries, TLS and credentials are the same everywhere. redis-py's own clients for Sentinel
and Cluster are not used: their pools fail where ours waits for a connection, and the one for Cluster asks a server
which argument of an FCALL is the key, one round trip for each call.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, AuthenticationError, ClusterDownError, MovedError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from circuitbreaker_operator.connections import Login, close, connection_options, heed_cancellation, new_client
from circuitbreaker_operator.redis_settings import Address, endpoint
from circuitbreaker_operator.settings import Settings

Command = tuple[str | int, ...]

_REDIRECTIONS: Final = 5  # as Redis' own tools do before they give up


class Servers(ABC):
    """The primaries. Only `locate` finds them, so it comes first; whatever fails, fails with redis-py's errors."""

    def __init__(self, settings: Settings, *, connections: int, retries: int) -> None:
        where = endpoint(settings)
        login = Login(where.user, where.password, settings.redis_password_file)
        self._options = connection_options(
            settings, login, database=where.database, connections=connections, retries=retries
        )
        self._clients: dict[Address, Redis] = {}
        self._users: Counter[Redis] = Counter()
        self.idle: frozenset[Address] = frozenset()  # primaries that have no keys yet, and may get some

    async def locate(self) -> frozenset[Address]:
        """Asks who the primaries are; connections to others are closed."""
        found = await self._find()
        # All at once: a probe and a look may both be here, and one closes what the other was about to.
        left = [self._clients.pop(address) for address in self._clients.keys() - found - self.idle]
        for client in left:
            await self._close_unless_used(client)
        return found

    def client(self, address: Address) -> Redis:
        """The client of one server, which stays ours to close."""
        if address not in self._clients:
            self._clients[address] = new_client(address, self._options)
        return self._clients[address]

    async def at(self, address: Address, *command: str | int) -> Any:
        """The reply of one server."""
        async with self._lent(address) as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def send(self, *command: str | int) -> Any:
        """The reply of the server that has the command's key."""
        (reply,) = await self.pipeline([command])
        if isinstance(reply, Exception):
            raise reply
        return reply

    @abstractmethod
    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The replies in order, an error reply as the exception that redis-py makes of it."""

    async def renew(self) -> None:
        """Connections begin anew; redis-py keeps what it read from the files of certificates as long as one lives."""
        while self._clients:
            await self._close_unless_used(self._clients.popitem()[1])

    async def aclose(self) -> None:
        await self.renew()

    @abstractmethod
    async def _find(self) -> frozenset[Address]: ...

    async def _piped(self, address: Address, commands: Sequence[Command]) -> list[Any]:
        async with self._lent(address) as client:
            pipeline = client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return await pipeline.execute(raise_on_error=False)

    @asynccontextmanager
    async def _lent(self, address: Address) -> AsyncIterator[Redis]:
        """The client of one server, for a call. What is given up meanwhile is closed by the last who uses it.

        redis-py stumbles over a connection that is closed while it connects: its writer is None by then.
        """
        client = self.client(address)
        self._users[client] += 1
        try:
            yield client
        finally:
            self._users[client] -= 1
            if self._clients.get(address) is not client:
                await self._close_unless_used(client)

    async def _close_unless_used(self, client: Redis) -> None:
        if not self._users[client]:
            del self._users[client]
            await close(client)


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
        self._sentinel_options = connection_options(settings, login, database=0, connections=1, retries=0)
        self._name = settings.redis_sentinel_master
        self._addresses = settings.redis_sentinel
        self._sentinels: list[Redis] = []
        self._primary: Address | None = None

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        if self._primary is None:
            raise RedisConnectionError("the sentinels have not been asked yet")
        return await self._piped(self._primary, commands)

    async def renew(self) -> None:
        await super().renew()
        while self._sentinels:
            await close(self._sentinels.pop())

    async def _find(self) -> frozenset[Address]:
        if not self._sentinels:
            self._sentinels = [new_client(address, self._sentinel_options) for address in self._addresses]
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
    """The primaries of a Redis Cluster. `CLUSTER SHARDS` says who has which slot, a redirection corrects it."""

    def __init__(self, settings: Settings, *, connections: int, retries: int) -> None:
        super().__init__(settings, connections=connections, retries=retries)
        self._entry = endpoint(settings).address
        self._owners: list[Address] = []  # of each slot
        self._primaries: frozenset[Address] = frozenset()
        self._tls = endpoint(settings).tls
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
                shards = _primaries(await self.at(address, "CLUSTER", "SHARDS"), asked=address, tls=self._tls)
                self._owners = _owners(shards)
            except (RedisError, OSError) as error:
                failed = error
                heed_cancellation()
                continue
            self._primaries = frozenset(self._owners)
            self.idle = frozenset(shards) - self._primaries
            return self._primaries
        assert failed is not None
        raise failed


def open_servers(settings: Settings, *, connections: int, retries: int = 2) -> Servers:
    """What the settings say, every timeout set: `connections` at most to each server. Nothing is sent yet."""
    kind = OfSentinels if settings.redis_sentinel else OfCluster if settings.redis_cluster else Standalone
    return kind(settings, connections=connections, retries=retries)


def _key(command: Command) -> str:
    """The first key: FCALL names a function and how many keys there are before it."""
    return str(command[3] if command[0] in {"FCALL", "FCALL_RO"} else command[1])


def _primaries(shards: Any, *, asked: Address, tls: bool) -> dict[Address, list[int]]:
    """Each primary with the bounds of its ranges of slots, from the reply to CLUSTER SHARDS."""
    found: dict[Address, list[int]] = {}
    for shard in shards:
        parts = _pairs(shard)
        for node in map(_pairs, parts[b"nodes"]):
            if node[b"role"] != b"master" or node.get(b"health") == b"failed":
                continue  # one that failed is listed beside the one that took its place
            # "?" is written for a node whose name is not known, and nothing for the one that was asked.
            host = (node.get(b"endpoint") or b"").decode().strip("?") or asked.host
            port = node.get(b"tls-port" if tls else b"port")
            if port is not None:
                found[Address(host, int(port))] = [int(each) for each in parts[b"slots"]]
    return found


def _owners(shards: Mapping[Address, Sequence[int]]) -> list[Address]:
    """Who has each slot; raises ClusterDownError when one is nobody's."""
    owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    for primary, bounds in shards.items():
        for low, high in zip(bounds[::2], bounds[1::2], strict=True):
            owners[low : high + 1] = [primary] * (high + 1 - low)
    found = [each for each in owners if each is not None]
    if len(found) < len(owners):
        raise ClusterDownError("not every slot of the Cluster is served")
    return found


def _pairs(flat: list[Any]) -> dict[Any, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=False))


def _named(reply: list[bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in _pairs(reply).items()}
