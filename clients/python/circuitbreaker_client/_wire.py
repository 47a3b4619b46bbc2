"""A connection to Redis. redis-py makes it (address, login, TLS, Sentinel); what goes over it is read by _replies.py.

What redis-py would do by itself (retries, health checks, a growing number of timeouts) is set or switched off.
"""

import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError
from redis.retry import Retry

from circuitbreaker_client._redirections import Address
from circuitbreaker_client._replies import Replies
from circuitbreaker_client.errors import StoreUnavailableError
from circuitbreaker_client.settings import Settings

_PIECE: Final = 65_536


class PasswordFile(CredentialProvider):
    """The password from a file, read anew for each connection so that it may be changed while we run."""

    def __init__(self, path: Path, user: str | None) -> None:
        self._path = path
        self._user = user

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._path.read_text(encoding="utf-8").strip()
        return (self._user, password) if self._user else (password,)


Connect = Callable[[float], Any]  # with that many seconds for the connection and for each word of the login
Reach = Callable[[Address | None], Connect]  # of another server than the one of the settings, with the same login


def reach(settings: Settings, pool: redis.ConnectionPool | None) -> Reach:
    """Makes connections, unconnected. From `pool` are taken address, login and TLS, not its timeouts."""
    ours: dict[str, Any] = {
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
    taken = ("socket_timeout", "socket_connect_timeout", "retry_on_timeout", "retry_on_error")
    for name in (*taken, "maint_notifications_config"):
        options.pop(name, None)

    def to(address: Address | None) -> Connect:
        kind, at = pool.connection_class, dict(options)
        if address is not None:
            if at.pop("path", None) is not None:  # a Unix socket leads to one node only
                kind = redis.Connection
            at |= address._asdict()
        return lambda seconds: kind(**at, socket_timeout=seconds, socket_connect_timeout=seconds)

    return to


def unavailable(error: BaseException) -> StoreUnavailableError:
    text = str(error) or type(error).__name__
    if isinstance(error, AuthenticationError | AuthorizationError):
        text = f"Redis refuses the login: {text}"
    found = StoreUnavailableError(text)
    found.__cause__ = error
    return found


class ClosedError(OSError):
    """The other end has closed the connection."""


class Wire:
    """Open from the beginning to `close`. Raises OSError (TimeoutError when nothing comes) and RedisError.

    `seconds`: for the connection, for the login, and for what comes afterwards.
    """

    def __init__(self, connect: Connect, seconds: float) -> None:
        self._seconds = seconds
        self._connection = connect(seconds)
        self._replies = Replies()
        try:
            self._connection.connect()
        except (RedisError, OSError):
            self.close()
            raise
        except Exception as error:  # of a credential provider, of a name that no host can have
            self.close()
            raise redis.ConnectionError(f"{type(error).__name__}: {error}") from error
        except BaseException:
            self.close()
            raise
        self._socket: Any = self._connection._sock  # noqa: SLF001 - redis-py has no other way to wait for two things

    def fileno(self) -> int:
        return cast("int", self._socket.fileno())

    def send(self, commands: Sequence[Sequence[str | int]]) -> None:
        self._socket.sendall(b"".join(map(_encoded, commands)))

    def receive(self, count: int, seconds: float, late: Callable[[], None]) -> list[Any]:
        """That many replies. Calls `late` each time that nothing has come for `seconds`; it may raise.

        What counts is how often nothing was there, not the clock: a process that was stopped for a while finds its
        answers when it goes on.
        """
        replies: list[Any] = []
        looks = max(1, round(self._seconds / seconds))
        self._socket.settimeout(seconds)
        while len(replies) < count:
            try:
                piece = self._piece()
            except TimeoutError:
                looks -= 1
                late()
                if looks < 1:
                    raise
            else:
                replies += self._replies.feed(piece)
        return replies

    def received(self) -> list[Any]:
        """What has come already; for a wire that never blocks."""
        replies: list[Any] = []
        with suppress(BlockingIOError, ssl.SSLWantReadError):
            while True:
                piece = self._piece()
                replies += self._replies.feed(piece)
                if len(piece) < _PIECE and not getattr(self._socket, "pending", _nothing)():
                    break  # what TLS has deciphered already would wake nobody
        return replies

    def never_blocks(self) -> None:
        self._socket.setblocking(False)

    def close(self) -> None:
        with suppress(RedisError, OSError):
            self._connection.disconnect()

    def _piece(self) -> bytes:
        piece: bytes = self._socket.recv(_PIECE)
        if not piece:
            raise ClosedError("Redis has closed the connection")
        return piece


def _encoded(words: Sequence[str | int]) -> bytes:
    parts = [str(word).encode() for word in words]
    return b"*%d\r\n%s" % (len(parts), b"".join([b"$%d\r\n%s\r\n" % (len(part), part) for part in parts]))


def _nothing() -> int:
    return 0
