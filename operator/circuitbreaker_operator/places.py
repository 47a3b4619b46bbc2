"""Places in flight for Events, so that those that nobody answers leave some: to statuses, and to other namespaces."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from circuitbreaker_operator.errors import NoPlaceError

_LINE: Final = 3  # so many times as many may wait for a place, or have one, while somebody has no answer
_SLOW_SECONDS: Final = 1.0  # for that long; otherwise the line moves


class Places:
    """So many of all namespaces together, and so many of one."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most, self._most_of_one = most, most_of_one
        self._all = asyncio.Semaphore(most)
        self._each: dict[str, asyncio.Semaphore] = {}
        self._line: Counter[str] = Counter()
        self._inside: dict[object, tuple[str, float]] = {}  # who has a place, the first one first, and since when

    @asynccontextmanager
    async def one(self, namespace: str) -> AsyncIterator[None]:
        """Waits for a place, in turn. Raises NoPlaceError when the line is too long, and does not move."""
        if self._line.total() >= _LINE * self._most and self._is_slow():
            raise NoPlaceError("more Events wait for an answer than may")
        if self._line[namespace] >= _LINE * self._most_of_one and self._is_slow(namespace):
            raise NoPlaceError(f"more Events of {namespace} wait for an answer than may")
        self._line[namespace] += 1
        ticket = object()
        try:
            async with self._each.setdefault(namespace, asyncio.Semaphore(self._most_of_one)), self._all:
                self._inside[ticket] = namespace, asyncio.get_running_loop().time()
                yield
        finally:
            self._inside.pop(ticket, None)
            self._line[namespace] -= 1
            if not self._line[namespace]:
                del self._line[namespace], self._each[namespace]

    def _is_slow(self, namespace: str = "") -> bool:
        """Whether anybody has waited long for an answer, there or anywhere."""
        since = asyncio.get_running_loop().time() - _SLOW_SECONDS
        return any(began <= since and namespace in {"", of} for of, began in self._inside.values())
