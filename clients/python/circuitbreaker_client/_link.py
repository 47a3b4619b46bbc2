"""What is said over the two connections: calls with their answers, and the subscription. Redis' errors end here.

Every call of the contract can be repeated, so a connection that has died is replaced and the call sent again, once.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import redis
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from circuitbreaker_client._redirections import Redirection, parse_redirection
from circuitbreaker_client._replies import RefusedReply
from circuitbreaker_client._wire import Connect, Wire, unavailable
from circuitbreaker_client.errors import StoreUnavailableError
from circuitbreaker_client.settings import Settings
from circuitbreaker_contract import library, protocol
from circuitbreaker_contract.errors import CircuitBreakerError, ContractError, VersionError
from circuitbreaker_contract.protocol import Call, ReplyError

CHUNK: Final = 50  # calls sent at once: some milliseconds of Redis' time, well within the timeout
_MISSING: Final = "Function not found"
# A fail-over (another server is, or will be, the right one), or a server that is busy with itself.
_PASSING_WORDS: Final = (
    "READONLY", "MASTERDOWN", "LOADING", "BUSY ", "CLUSTERDOWN", "MISCONF", "NOREPLICAS", "NOAUTH", "OOM ",
)  # fmt: skip
# Of a Redis Cluster: nobody has a breaker's slot, or a node does not know by which address another one is reached.
_ONE_SLOT: Final = ("CLUSTERDOWN Hash slot", "MOVED ", "ASK ")
_MOVING: Final = ("TRYAGAIN", "ERR Script attempted to access a non local key")  # a key that is missing in this place


class LibraryMissingError(CircuitBreakerError):
    """Redis has no function of that name: the operator has not loaded the library, or Redis has lost it."""


class StoreRefusedError(CircuitBreakerError):
    """Redis has answered, and does not do it: no permission, no memory."""


class RedirectedError(CircuitBreakerError):
    """Another node of a Redis Cluster has it."""

    def __init__(self, to: Redirection) -> None:
        super().__init__(f"{to.address} has it")
        self.to = to


class SlotUnavailableError(StoreUnavailableError):
    """The node serves others, and not this breaker at the moment."""


class SlotMovingError(SlotUnavailableError):
    """Its slot is on the way from or to that node."""


class Link:
    """Sends calls to one server and reads their replies. Not thread-safe.

    An answer is late after `redis_timeout_seconds`: `late` is called then, and again until it comes or, after
    `patience_seconds`, the connection is given up. `late` may raise TimeoutError to give it up sooner.
    """

    def __init__(self, connect: Connect, settings: Settings, late: Callable[[], None]) -> None:
        self._connect = connect
        self._late = late
        self._late_after_seconds = settings.redis_timeout_seconds
        self._wire: Wire | None = None
        self.patience_seconds = settings.patience_seconds  # of connections that are made from now on

    def exchange(self, calls: Sequence[Call[Any]], *, asking: bool = False) -> list[Any]:
        """For each call its value, or the CircuitBreakerError that it was answered with.

        `asking`: they were sent here although their slot has not arrived yet. Raises StoreUnavailableError when Redis
        does not answer, or serves nobody at the moment.
        """
        may_have_died = self._wire is not None  # while nobody looked
        while True:
            try:
                return self._exchanged(calls, asking)
            except StoreUnavailableError:
                self.close()
                raise
            except (RedisError, OSError, VersionError) as error:
                self.close()
                if not may_have_died or isinstance(error, TimeoutError | RedisTimeoutError):
                    raise unavailable(error) from error
                may_have_died = False

    def load_library(self) -> None:
        """Loads ours where none or an older one is. Raises StoreUnavailableError and what the contract raises."""
        found = self.exchange([protocol.version()])[0]
        if isinstance(found, CircuitBreakerError) and not isinstance(found, LibraryMissingError):
            raise found
        if library.should_load(None if isinstance(found, LibraryMissingError) else found):
            try:
                wire = self._opened()
                wire.send([("FUNCTION", "LOAD", "REPLACE", library.source())])
                reply = self._received(wire, 1)[0]
            except (RedisError, OSError) as error:
                self.close()
                raise unavailable(error) from error
            if isinstance(reply, RefusedReply):
                raise _translated(reply)

    def close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def _exchanged(self, calls: Sequence[Call[Any]], asking: bool) -> list[Any]:
        wire = self._opened()
        before = [("ASKING",)] if asking else []
        found: list[Any] = []
        for first in range(0, len(calls), CHUNK):
            chunk = calls[first : first + CHUNK]
            wire.send([command for call in chunk for command in (*before, call.command())])
            replies = self._received(wire, len(chunk) * (1 + asking))
            found += map(_answer, chunk, replies[asking :: 1 + asking])
        for answer in found:
            if isinstance(answer, StoreUnavailableError) and not isinstance(answer, SlotUnavailableError):
                # Not the answer itself: this frame has it, and it would have this frame, with a connection in it.
                raise StoreUnavailableError(str(answer)) from answer.__cause__
        return found

    def _received(self, wire: Wire, count: int) -> list[Any]:
        return wire.receive(count, self._late_after_seconds, self._late)

    def _opened(self) -> Wire:
        if self._wire is None:
            self._wire = Wire(self._connect, self.patience_seconds)
            # Which contract is spoken is asked once a connection. A missing library shows in every answer.
            spoken = self._exchanged([protocol.version()], asking=False)[0]
            if isinstance(spoken, protocol.Version) and spoken.contract != library.CONTRACT_VERSION:
                raise VersionError(
                    f"the library in Redis speaks contract version {spoken.contract}, "
                    f"this client {library.CONTRACT_VERSION}"
                )
        return self._wire


def _answer(call: Call[Any], reply: Any) -> Any:
    if isinstance(reply, RefusedReply):
        return _translated(reply)
    try:
        return call.read(reply)
    except ReplyError as error:
        return error


def _translated(text: str) -> CircuitBreakerError:
    found: CircuitBreakerError | None = ContractError.from_reply(text)
    if found is None and (redirection := parse_redirection(text)) is not None:
        found = RedirectedError(redirection)
    if found is None and _MISSING in text:
        found = LibraryMissingError("Redis has no function library: is the operator running?")
    if found is None and text.startswith(_MOVING):
        found = SlotMovingError(text)
    if found is None and text.startswith(_ONE_SLOT):
        found = SlotUnavailableError(text)
    if found is None and text.startswith(_PASSING_WORDS):
        found = StoreUnavailableError(text)
    found = found or StoreRefusedError(text)
    found.__cause__ = redis.ResponseError(text)
    return found


class Listener:
    """The subscription. `fileno` is readable when there is something to `hear`; that raises StoreUnavailableError."""

    def __init__(self, connect: Connect, seconds: float) -> None:
        self.awaits_pong = False
        self.refused: list[str] = []  # what Redis said of channels that we may not hear
        try:
            self._wire = Wire(connect, seconds)
        except (RedisError, OSError) as error:
            raise unavailable(error) from error
        self._wire.never_blocks()

    def fileno(self) -> int:
        return self._wire.fileno()

    def subscribe(self, channel: str) -> None:
        """One command for each channel: a channel that the login may not hear must not cost the other one."""
        self._send("SUBSCRIBE", channel)

    def ping(self) -> None:
        self._send("PING")
        self.awaits_pong = True

    def hear(self) -> list[tuple[str, bytes]]:
        """What has come: `("subscribe", channel)`, `("message", data)`."""
        heard: list[tuple[str, bytes]] = []
        try:
            replies = self._wire.received()
        except OSError as error:
            raise unavailable(error) from error
        for reply in replies:
            kind = reply[0] if isinstance(reply, list) and reply else reply
            if isinstance(reply, RefusedReply):
                self.refused.append(str(reply))
            elif kind in {b"pong", b"PONG"}:
                self.awaits_pong = False
            elif kind in {b"subscribe", b"message"} and isinstance(reply, list) and len(reply) == 3:
                heard.append((kind.decode(), reply[2 if kind == b"message" else 1]))
        return heard

    def close(self) -> None:
        self._wire.close()

    def _send(self, *command: str) -> None:
        try:
            self._wire.send([command])
        except OSError as error:
            raise unavailable(error) from error
