"""Places in flight for Events, so that those that nobody answers leave some: to statuses, and to other namespaces."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from circuitbreaker_operator.errors import NoPlaceError

_LINE: Final = 3  # so many times as many may wait for a place, or have one


class Places:
    """So many of all namespaces together, and so many of one."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most, self._most_of_one = most, most_of_one
        self._all = asyncio.Semaphore(most)
        self._each: dict[str, asyncio.Semaphore] = {}
        self._line: Counter[str] = Counter()

    @asynccontextmanager
    async def one(self, namespace: str) -> AsyncIterator[None]:
        """Waits for a place, in turn. Raises NoPlaceError when the line is too long."""
        if self._line.total() >= _LINE * self._most or self._line[namespace] >= _LINE * self._most_of_one:
            raise NoPlaceError("more Events wait for an answer than may")
        self._line[namespace] += 1
        try:
            async with self._each.setdefault(namespace, asyncio.Semaphore(self._most_of_one)), self._all:
                yield
        finally:
            self._line[namespace] -= 1
            if not self._line[namespace]:
                del self._line[namespace], self._each[namespace]
