"""What a node of a Redis Cluster answers for a key that another one has. Pure."""

import re
from typing import Final, NamedTuple

_FORM: Final = re.compile(r"(MOVED|ASK) ([0-9]{1,5}) ([^\s@]{0,255}):([0-9]{1,5})")
_SLOTS: Final = 16_384
_UNKNOWN_HOST: Final = "?"  # a node that is to tell a hostname and has none


class Address(NamedTuple):
    """Of a server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Redirection(NamedTuple):
    """`asking`: for this once, while the slot is being moved. An empty host is that of whoever says it."""

    slot: int
    address: Address
    asking: bool


def parse_redirection(text: str) -> Redirection | None:
    """None for an answer that is none, or that leads nowhere."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    kind, slot, host, port = found[1], int(found[2]), found[3], int(found[4])
    if slot >= _SLOTS or not 0 < port < 65_536 or host == _UNKNOWN_HOST:
        return None
    return Redirection(slot, Address(host, port), asking=kind == "ASK")
