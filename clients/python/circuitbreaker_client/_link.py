"""The two connections to Redis: one for calls, one that listens. Errors of redis-py end here.

Connections are used without a pool, since one thread owns them; what redis-py would do by itself (retries, health
checks, a growing number of timeouts) is set or switched off. Every call of the contract can be repeated, so a
connection that has died is replaced and the call sent again, once.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    MasterDownError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)
from redis.retry import Retry

from circuitbreaker_client.errors import StoreUnavailableError
from circuitbreaker_client.settings import Settings
from circuitbreaker_contract import library, protocol
from circuitbreaker_contract.errors import CircuitBreakerError, ContractError
from circuitbreaker_contract.protocol import Call, ReplyError

CHUNK: Final = 50  # calls sent at once: some milliseconds of Redis' time, well within the timeout
_MISSING: Final = "Function not found"
_BROKEN: Final = (RedisConnectionError, RedisTimeoutError, OSError)
_PASSING: Final = (ReadOnlyError, MasterDownError)  # a fail-over: another server is, or will be, the right one
_PASSING_WORDS: Final = ("LOADING", "BUSY ", "CLUSTERDOWN", "TRYAGAIN", "MISCONF", "NOREPLICAS")


class LibraryMissingError(CircuitBreakerError):
    """Redis has no function of that name: the operator has not loaded the library, or Redis has lost it."""


class StoreRefusedError(CircuitBreakerError):
    """Redis has answered, and does not do it: no permission, no memory."""


class PasswordFile(CredentialProvider):
    """The password from a file, read anew for each connection so that it may be changed while we run."""

    def __init__(self, path: Path, user: str | None) -> None:
        self._path = path
        self._user = user

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._path.read_text(encoding="utf-8").strip()
        return (self._user, password) if self._user else (password,)


def connector(settings: Settings, pool: redis.ConnectionPool | None) -> Callable[[], Any]:
    """Makes connections, unconnected. From `pool` are taken address, login and TLS, not its timeouts."""
    seconds = settings.redis_timeout_seconds
    ours: dict[str, Any] = {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "protocol": 2,  # one shape of replies from every server
        "decode_responses": False,
        "client_name": "circuitbreaker-client",
    }
    if pool is None:
        url = settings.redis_url
        if settings.redis_password_file is not None:
            parts = urlsplit(url)
            user = unquote(parts.username) if parts.username else None
            ours["credential_provider"] = PasswordFile(Path(settings.redis_password_file), user)
            url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
        pool = redis.ConnectionPool.from_url(url)
    options = {**pool.connection_kwargs, **ours}
    for name in ("retry_on_timeout", "retry_on_error", "maint_notifications_config"):
        options.pop(name, None)
    return lambda: pool.connection_class(**options)


def unavailable(error: BaseException) -> StoreUnavailableError:
    text = str(error) or type(error).__name__
    if isinstance(error, AuthenticationError | AuthorizationError):
        text = f"Redis refuses the login: {text}"
    found = StoreUnavailableError(text)
    found.__cause__ = error
    return found


class Link:
    """Sends calls and reads their replies. Not thread-safe."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._connection: Any = None

    def exchange(self, calls: Sequence[Call[Any]]) -> list[Any]:
        """For each call its value, or the CircuitBreakerError that it was answered with.

        Raises StoreUnavailableError when Redis does not answer, or serves nobody at the moment.
        """
        was_open = self._connection is not None
        try:
            return self._exchanged(calls)
        except RedisTimeoutError as error:
            self.close()
            raise unavailable(error) from error
        except _BROKEN as error:
            self.close()
            if not was_open:
                raise unavailable(error) from error
        try:
            return self._exchanged(calls)  # it had been closed while we did not look
        except (RedisError, OSError) as error:
            self.close()
            raise unavailable(error) from error

    def load_library(self) -> None:
        """Loads ours where none or an older one is. Raises StoreUnavailableError and what the contract raises."""
        found = self.exchange([protocol.version()])[0]
        if isinstance(found, CircuitBreakerError) and not isinstance(found, LibraryMissingError):
            raise found
        if library.should_load(None if isinstance(found, LibraryMissingError) else found):
            try:
                self._connection.send_command("FUNCTION", "LOAD", "REPLACE", library.source())
                self._connection.read_response()
            except ResponseError as error:
                raise StoreRefusedError(str(error)) from error
            except (RedisError, OSError) as error:
                self.close()
                raise unavailable(error) from error

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(RedisError, OSError):
                connection.disconnect()

    def _exchanged(self, calls: Sequence[Call[Any]]) -> list[Any]:
        connection = self._connection if self._connection is not None else self._open()
        found: list[Any] = []
        for first in range(0, len(calls), CHUNK):
            chunk = calls[first : first + CHUNK]
            connection.send_packed_command(
                connection.pack_commands([call.command() for call in chunk]), check_health=False
            )
            found.extend([self._answer(connection, call) for call in chunk])
        for answer in found:
            if isinstance(answer, StoreUnavailableError):
                self.close()
                raise answer
        return found

    def _open(self) -> Any:
        connection = self._connect()
        try:
            connection.connect()
        except BaseException:
            connection.disconnect()
            raise
        self._connection = connection
        # Which contract is spoken is asked once a connection. A missing library shows in every answer.
        spoken = self._exchanged([protocol.version()])[0]
        if isinstance(spoken, protocol.Version) and spoken.contract != library.CONTRACT_VERSION:
            self.close()
            raise RedisConnectionError(
                f"CBVERSION the library in Redis speaks contract version {spoken.contract}, "
                f"this client {library.CONTRACT_VERSION}"
            )
        return connection

    def _answer(self, connection: Any, call: Call[Any]) -> Any:
        try:
            return call.read(connection.read_response())
        except ReplyError as error:
            return error
        except ResponseError as error:
            return _translated(error)


def _translated(error: ResponseError) -> CircuitBreakerError:
    text = str(error)
    found: CircuitBreakerError | None = ContractError.from_reply(text)
    if found is None and _MISSING in text:
        found = LibraryMissingError("Redis has no function library: is the operator running?")
    if found is None and (isinstance(error, _PASSING) or text.startswith(_PASSING_WORDS)):
        found = StoreUnavailableError(text)
    found = found or StoreRefusedError(text)
    found.__cause__ = error
    return found


class Listener:
    """The subscription. `fileno` is readable when there is something to `hear`; that raises StoreUnavailableError."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connection = connect()
        self.awaits_pong = False
        self.refused: list[str] = []  # what Redis said of channels that we may not hear
        try:
            self._connection.connect()
        except (RedisError, OSError) as error:
            self.close()
            raise unavailable(error) from error

    def fileno(self) -> int:
        return cast("int", self._connection._sock.fileno())  # noqa: SLF001 - redis-py has no other way to select

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
            while self._connection.can_read(0):
                try:
                    reply = self._connection.read_response()
                except ResponseError as error:
                    self.refused.append(str(error))
                    continue
                kind = reply[0] if isinstance(reply, list) else reply
                if kind in {b"pong", b"PONG"}:
                    self.awaits_pong = False
                elif kind in {b"subscribe", b"message"}:
                    heard.append((kind.decode(), reply[-1 if kind == b"message" else 1]))
        except (RedisError, OSError) as error:
            raise unavailable(error) from error
        return heard

    def close(self) -> None:
        with suppress(RedisError, OSError):
            self._connection.disconnect()

    def _send(self, *command: str) -> None:
        try:
            self._connection.send_command(*command, check_health=False)
        except (RedisError, OSError) as error:
            raise unavailable(error) from error
