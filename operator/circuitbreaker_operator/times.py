"""Instants as text: RFC 3339 in UTC. Milliseconds where they come from Redis, seconds where Kubernetes has seconds."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = 9_000_000_000_000  # 2255; the functions refuse anything later


def to_text(ms: int) -> str:
    """`2026-01-01T00:00:00.000Z`."""
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_seconds_text(ms: int) -> str:
    """`2026-01-01T00:00:00Z`, as conditions and Events have it."""
    return (_EPOCH + timedelta(seconds=ms // 1000)).isoformat(timespec="seconds").replace("+00:00", "Z")


def to_ms(text: object) -> int:
    """Milliseconds since the epoch; raises ValueError for anything but an RFC 3339 time from 1970 to 2255."""
    if not isinstance(text, str):
        raise ValueError("not a time")  # noqa: TRY004 # a wrong value of untrusted JSON, like any other
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    ms = (moment - _EPOCH) // timedelta(milliseconds=1)
    if not 0 <= ms <= _LATEST_MS:
        raise ValueError("out of range")
    return ms
