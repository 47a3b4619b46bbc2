"""A breaker's hash as our edition of the library packs it (functions/breaker.lua). Nobody but tests may know it."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.client import NEVER_DECODE

NUMBERS = (
    *("word", "incarnation", "generation", "revision", "policyId", "since", "streak", "streakId"),
    *("windowCalls", "windowFailures", "windowSlow", "windowAt", "bucketCalls", "bucketFailures", "bucketSlow"),
    *("successes", "failures", "slow", "head", "openUntil", "openLength", "project"),
)
HOT = struct.Struct(f"<{len(NUMBERS)}d")
REPORTER = struct.Struct("<5d")  # seq, seen, last failure, its streak, last slow call


@dataclass(frozen=True)
class Stored:
    """`head` and `tail`: the letters at the edges of a count window. `rest`: the fields that are not packed."""

    hot: Mapping[str, float]
    head: str
    tail: str
    reporters: Mapping[str, tuple[float, ...]]
    rest: Mapping[str, str]


def unpacked(fields: Mapping[bytes, bytes]) -> Stored:
    raw = fields[b"hot"]
    hot = dict(zip(NUMBERS, HOT.unpack_from(raw), strict=True))
    letters, edge = raw[HOT.size :].decode("ascii"), int(hot.pop("head"))
    reporters = {name[2:].decode(): REPORTER.unpack(value) for name, value in fields.items() if name.startswith(b"c:")}
    rest = {
        name.decode(): value.decode() for name, value in fields.items() if name != b"hot" and not name.startswith(b"c:")
    }
    return Stored(hot, letters[:edge], letters[edge:], reporters, rest)


def raw_hash(client: Any, key: str) -> dict[bytes, bytes]:
    """The fields as bytes, whatever the client does with texts."""
    found = client.execute_command("HGETALL", key, **{NEVER_DECODE: True})
    return dict(found)


def stored(client: Any, key: str) -> Stored | None:
    """None when there is no breaker."""
    fields = raw_hash(client, key)
    return unpacked(fields) if fields else None


def falsified(hot: bytes, **numbers: float) -> bytes:
    """The packed field with some numbers replaced, as one who may write the hash could."""
    values = dict(zip(NUMBERS, HOT.unpack_from(hot), strict=True)) | numbers
    return HOT.pack(*values.values()) + hot[HOT.size :]
