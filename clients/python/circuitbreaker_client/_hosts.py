"""The name of the breaker that protects a host, made from the host alone, so that every client derives the same."""

import re
from contextlib import suppress
from functools import lru_cache
from hashlib import sha1
from ipaddress import IPv6Address
from typing import Final

from circuitbreaker_contract.keys import NAME_FORM

LONGEST: Final = 63  # characters of a Kubernetes name
_DIGEST_LENGTH: Final = 8
_SCHEME_PORTS: Final = {"http": 80, "https": 443}
_FORBIDDEN: Final = re.compile(r"[^a-z0-9.-]+")


@lru_cache(maxsize=1_024)
def breaker_of_host(scheme: str, host: str, port: int | None) -> str:
    """`api.example.com`; with a port that is not the scheme's own `api.example.com-8443`.

    `host` is in its ASCII form. What a name cannot hold becomes `-`; an IPv6 address is written in full, `-` for `:`. A
    name that is too long keeps its beginning and gets a digest of the whole. The scheme is no part of it: one host, one
    breaker.
    """
    name = _plain(host.lower().strip("[]"))
    if port is not None and port != _SCHEME_PORTS.get(scheme):
        name = f"{name}-{port}"
    if len(name) > LONGEST:
        digest = sha1(name.encode(), usedforsecurity=False).hexdigest()[:_DIGEST_LENGTH]
        name = f"{name[: LONGEST - _DIGEST_LENGTH - 1]}-{digest}"
    return name if NAME_FORM.fullmatch(name) else "unknown-host"


def _plain(host: str) -> str:
    with suppress(ValueError):  # any other host
        host = IPv6Address(host.partition("%")[0]).exploded
    return _FORBIDDEN.sub("-", host.replace(":", "-")).strip("-.")
