"""Reads what a subscription says, off the bytes as they come (RESP2).

redis-py's reader can tell that there is more only by trying to read on, some ten system calls for each message. When
fifty processes wake at the same message, that is a third of the time until the last of them knows.
"""

from typing import Any, Final

from circuitbreaker_client.errors import StoreUnavailableError

_MOST_BYTES: Final = 1 << 20  # far more than any message of ours; else something else is at the other end


class RefusedReply(str):
    """The text of an error reply."""

    __slots__ = ()


class Replies:
    """`feed` takes bytes in pieces of any size and gives the replies that are complete."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Any]:
        """Lists, bytes, integers, None and RefusedReply. Raises StoreUnavailableError for what is not RESP2."""
        text = self._rest + data
        replies: list[Any] = []
        at = 0
        try:
            while at < len(text):
                found, after = _read(text, at)
                if after < 0:
                    break
                replies.append(found)
                at = after
        except (ValueError, RecursionError) as error:
            raise StoreUnavailableError(f"no reply of Redis: {text[at : at + 40]!r}") from error
        self._rest = text[at:]
        if len(self._rest) > _MOST_BYTES:
            raise StoreUnavailableError("a reply without an end")
        return replies


def _read(text: bytes, at: int) -> tuple[Any, int]:
    """The reply at `at` and where the next one begins; -1: it is not complete."""
    end = text.find(b"\r\n", at)
    if end < 0:
        return None, -1
    kind, line, after = text[at : at + 1], text[at + 1 : end], end + 2
    match kind:
        case b"$":
            length = int(line)
            if length < 0:
                return None, after
            whole = after + length + 2
            return (text[after : after + length], whole) if whole <= len(text) else (None, -1)
        case b"*":
            parts: list[Any] = []
            for _ in range(int(line)):
                part, after = _read(text, after)
                if after < 0:
                    return None, -1
                parts.append(part)
            return parts, after
        case b":":
            return int(line), after
        case b"+":
            return line, after
        case b"-":
            return RefusedReply(line.decode("utf-8", "replace")), after
    raise ValueError(kind)
