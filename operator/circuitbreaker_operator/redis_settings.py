"""The settings of Redis in particular: how addresses are written, and which values cannot be together.

Everything that can be known to be wrong before the first connection is found here, since a connection that fails is
taken for an outage and waited for.
"""

import os
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from circuitbreaker_contract.environment import REDIS_URL_FORM, check_redis_url

if TYPE_CHECKING:
    from circuitbreaker_operator.settings import Settings

REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Endpoint(NamedTuple):
    """What a URL of Redis says. `address` has an empty host where the sentinels know it."""

    address: Address
    tls: bool
    user: str | None
    password: str | None
    database: int


def endpoint(settings: "Settings") -> Endpoint:
    """The parts of CB_REDIS_URL, which has been checked."""
    parts = urlsplit(settings.redis_url.get_secret_value())
    return Endpoint(
        Address("" if settings.redis_sentinel else parts.hostname or "", parts.port or REDIS_PORT),
        parts.scheme == "rediss",
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
        int(parts.path.strip("/") or 0),
    )


def checked_url(value: SecretStr) -> SecretStr:
    """Checks the form. The host may be left out, since sentinels know it."""
    text = value.get_secret_value()
    parts = urlsplit(check_redis_url(text, host_needed=False))
    if parts.hostname is not None and "," in parts.hostname:
        raise ValueError(f"{REDIS_URL_FORM}; one host is enough, a Cluster tells of the others")
    if parts.query or parts.fragment:
        raise ValueError(
            f"{REDIS_URL_FORM}; it takes no options, see CB_REDIS_VERIFY, CB_REDIS_CA_FILE and CB_REDIS_TIMEOUT"
        )
    return value


def addresses(value: object) -> object:
    """`host:port` with commas between; raises ValueError."""
    if not isinstance(value, str):
        return value
    found = []
    for text in filter(None, (each.strip() for each in value.split(","))):
        address = None
        with suppress(ValueError):
            parts = urlsplit(f"//{text}")
            if parts.hostname and parts.netloc == text and not parts.username and parts.port != 0:
                address = Address(parts.hostname, parts.port or SENTINEL_PORT)
        if address is None:
            raise ValueError("must be host:port, with commas between them when there are several")
        found.append(address)
    return tuple(found)


def contradictions(settings: "Settings") -> Iterator[tuple[str, str]]:
    """(field, what is wrong about it and what to do) for each value that others, or the files named, rule out."""
    where = endpoint(settings)
    has_host = bool(urlsplit(settings.redis_url.get_secret_value()).hostname)
    if settings.redis_sentinel:
        if settings.redis_cluster:
            yield "redis_cluster", "a Cluster has no sentinels; leave out this, or CB_REDIS_SENTINEL"
        if not settings.redis_sentinel_master:
            yield (
                "redis_sentinel_master",
                "is needed with CB_REDIS_SENTINEL: what sentinels call the primary",
            )
        if has_host and "redis_url" in settings.model_fields_set:
            text = "must have no host, since CB_REDIS_SENTINEL tells it: write redis://user@/0, or rediss://user@/0"
            yield "redis_url", text
    else:
        if not has_host:
            yield "redis_url", f"{REDIS_URL_FORM}; its host is missing (only with CB_REDIS_SENTINEL it has none)"
        for field in ("redis_sentinel_master", "redis_sentinel_user", "redis_sentinel_password_file"):
            if getattr(settings, field):
                yield field, "means nothing without CB_REDIS_SENTINEL, the addresses of the sentinels"
    if settings.redis_cluster and where.database:
        yield "redis_url", "a Redis Cluster has no databases besides 0; leave its number out"
    if settings.redis_password_file is not None and where.password is not None:
        yield "redis_password_file", "there is a password in CB_REDIS_URL too; give one of them"
    if settings.redis_sentinel_user and settings.redis_sentinel_password_file is None:
        yield "redis_sentinel_user", "is of no use without CB_REDIS_SENTINEL_PASSWORD_FILE"
    files = (field for field in type(settings).model_fields if field.startswith("redis_") and field.endswith("_file"))
    missing = [(field, text) for field in files if (text := _unreadable(getattr(settings, field)))]
    yield from missing
    yield from _tls(settings, tls=where.tls, readable=not missing)


def _tls(settings: "Settings", *, tls: bool, readable: bool) -> Iterator[tuple[str, str]]:
    if not tls:
        for field in ("redis_ca_file", "redis_cert_file", "redis_key_file"):
            if getattr(settings, field) is not None:
                yield field, "is for TLS, and CB_REDIS_URL does not ask for it: write rediss:// there"
        if "redis_verify" in settings.model_fields_set:
            yield "redis_verify", "is for TLS, and CB_REDIS_URL does not ask for it: write rediss:// there"
        return
    if settings.redis_verify == "none" and settings.redis_ca_file is not None:
        yield "redis_verify", "none looks at no certificate, so CB_REDIS_CA_FILE means nothing; say ca or full"
    elif (settings.redis_cert_file is None) != (settings.redis_key_file is None):
        given, needed = ("cert", "key") if settings.redis_key_file is None else ("key", "cert")
        yield f"redis_{needed}_file", f"is needed with CB_REDIS_{given.upper()}_FILE"
    elif readable:
        yield from _certificates(settings)


def _certificates(settings: "Settings") -> Iterator[tuple[str, str]]:
    """Whether the files hold what they should: else each connection would fail, and look like an outage."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if settings.redis_ca_file is not None:
        try:
            context.load_verify_locations(settings.redis_ca_file)
        except (ssl.SSLError, OSError) as error:
            yield "redis_ca_file", f"no certificates in PEM at {settings.redis_ca_file} ({error})"
    if settings.redis_cert_file is not None and settings.redis_key_file is not None:
        try:
            # Given a password, OpenSSL does not ask the terminal for that of an encrypted key.
            context.load_cert_chain(settings.redis_cert_file, settings.redis_key_file, password="")
        except (ssl.SSLError, OSError, ValueError) as error:
            pair = f"{settings.redis_cert_file} and {settings.redis_key_file}"
            yield "redis_cert_file", f"no certificate and its unencrypted key in PEM at {pair} ({error})"


def _unreadable(path: Path | None) -> str:
    if path is None:
        return ""
    if not path.is_file():
        return f"no file at {path}"
    return "" if os.access(path, os.R_OK) else f"the file at {path} may not be read"
