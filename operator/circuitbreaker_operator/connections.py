"""Connections to Redis and to sentinels, all made alike: timeouts and retries set, credentials, TLS; and the errors."""

import asyncio
from contextlib import suppress
from pathlib import Path
from ssl import TLSVersion
from typing import Any, Final, NamedTuple

from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from circuitbreaker_contract.errors import CircuitBreakerError, ContractError
from circuitbreaker_operator.errors import FULL, SlotMovingError, StoreRefusedError, StoreUnavailableError
from circuitbreaker_operator.redis_settings import Address, endpoint
from circuitbreaker_operator.settings import Settings

MISSING_FUNCTION: Final = "Function not found"
IS_CLUSTER: Final = "this is a node of a Redis Cluster; set CB_REDIS_CLUSTER=true"
_TRANSIENT = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, MasterDownError, ClusterDownError, OSError)
# Error replies that pass by themselves: a script that runs too long, a replica that is being promoted.
_TRANSIENT_WORDS = ("BUSY ", "LOADING", "NOREPLICAS", "MISCONF")
_ON_THE_WAY = "access a non local key"  # said to a function, of a key that is not there while its slot is being moved


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


def new_client(address: Address, options: dict[str, Any]) -> Redis:
    pool = BlockingConnectionPool(host=address.host, port=address.port, **options)
    return Redis.from_pool(pool)  # closed together with the client


def connection_options(
    settings: Settings, login: Login, *, database: int, connections: int, retries: int
) -> dict[str, Any]:
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


async def close(client: Redis) -> None:
    with suppress(RedisError, OSError):
        await client.aclose()


def translated(error: BaseException) -> CircuitBreakerError:
    """Our error for one of redis-py."""
    text = str(error) or type(error).__name__
    if isinstance(error, AuthenticationError | AuthorizationError):
        return StoreUnavailableError(f"Redis refuses the login: {text}")
    if isinstance(error, MovedError):
        return StoreRefusedError(IS_CLUSTER)
    if isinstance(error, TryAgainError) or _ON_THE_WAY in text:
        return SlotMovingError(f"its slot of the Redis Cluster is being moved: {text}")
    if isinstance(error, OutOfMemoryError):
        return StoreRefusedError(f"{FULL}: {text}")
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
