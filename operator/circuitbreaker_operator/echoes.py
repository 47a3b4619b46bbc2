"""Our own writes come back by the watch. Kopf would take each apart, for a seventh of all that the operator costs.

The answer to a write has told us all of it, so a line of the watch that says it again is dropped unread. One that is
quicker than the answer is not known for what it is, and goes the whole way, as all that is in doubt does.
"""

import re
import threading
from collections.abc import Callable
from typing import Final

_MOST: Final = 1_000  # answers come within a moment of their lines
_MODIFIED: Final = b'{"type":"MODIFIED"'
# Quotes within strings are escaped, so this is a key; and each object has the one of its metadata.
_VERSION: Final = re.compile(rb'"resourceVersion":"([^"]*)"')


class Echoes:
    """Resource versions that our writes were answered with. Written in the operator's thread, read in Kopf's.

    `dropped` is called for each line that was.
    """

    def __init__(self, *, dropped: Callable[[], None]) -> None:
        self._dropped = dropped
        self._versions: dict[bytes, None] = {}
        self._lock = threading.Lock()

    def expect(self, resource_version: str) -> None:
        """What the watch says of that version is known."""
        with self._lock:
            self._versions[resource_version.encode()] = None
            if len(self._versions) > _MOST:
                del self._versions[next(iter(self._versions))]

    def forget(self) -> None:
        """Another watch begins, perhaps of an etcd that was restored: versions may come again."""
        with self._lock:
            self._versions.clear()

    def says(self, line: bytes) -> bool:
        """Whether a line of a watch says what is known; once for each version."""
        if not self._versions or not line.startswith(_MODIFIED):
            return False
        found = _VERSION.findall(line)
        # A second one is an annotation of that name, say: let who can read it look.
        if len(found) != 1:
            return False
        with self._lock:
            if found[0] not in self._versions:
                return False
            del self._versions[found[0]]
        self._dropped()
        return True


class Lines:
    """The lines of a stream that comes in pieces, but for the echoes."""

    def __init__(self, echoes: Echoes) -> None:
        self._echoes = echoes
        self._rest = b""

    def of(self, piece: bytes) -> bytes:
        """Those that this piece completes, each with its end."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return b"".join(line + b"\n" for line in lines if not self._echoes.says(line))
