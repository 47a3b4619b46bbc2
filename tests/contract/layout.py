"""A breaker's hash as our edition of the library packs it (functions/breaker.lua). Nobody but tests may know it."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.client import NEVER_DECODE

EDGE = 32  # letters at an edge of a count window
STANDING_NAMES = (
    *("word", "incarnation", "generation", "revision", "since", "openUntil", "openLength", "project", "policyId"),
)
COUNTS_NAMES = (
    *("streak", "streakId", "windowCalls", "windowFailures", "windowSlow", "windowAt"),
    *("successes", "failures", "slow", "left"),  # left of the head; for a time window the bucket stands there
)
STANDING = struct.Struct(f"<{len(STANDING_NAMES)}d")
COUNTS = struct.Struct(f"<{len(COUNTS_NAMES)}d")
REPORTER = struct.Struct("<5d")  # seq, seen, last failure, its streak, last slow call


@dataclass(frozen=True)
class Stored:
    """`head` and `tail`: the letters at the edges of a count window."""

    counts: Mapping[str, float]
    head: str
    tail: str
    reporters: Mapping[str, tuple[float, ...]]


def raw_hash(client: Any, key: str) -> dict[bytes, bytes]:
    """The fields as bytes, whatever the client does with texts."""
    found = client.execute_command("HGETALL", key, **{NEVER_DECODE: True})
    return dict(found)


def stored(client: Any, key: str, size: int = 0) -> Stored | None:
    """None when there is no breaker. `size`: of its count window."""
    fields = raw_hash(client, key)
    if not fields:
        return None
    raw = fields[b"counts"]
    counts = dict(zip(COUNTS_NAMES, COUNTS.unpack_from(raw), strict=True))
    letters, left = (raw[COUNTS.size :].decode("ascii"), int(counts["left"])) if size else ("", 0)
    edge = min(EDGE, size) if left else 0
    reporters = {name[2:].decode(): REPORTER.unpack(value) for name, value in fields.items() if name.startswith(b"c:")}
    return Stored(counts, letters[edge - left : edge], letters[edge:], reporters)


def falsified(standing: bytes, **numbers: float) -> bytes:
    """The packed field with some numbers replaced, as one who may write the hash could."""
    values = dict(zip(STANDING_NAMES, STANDING.unpack(standing), strict=True)) | numbers
    return STANDING.pack(*values.values())
