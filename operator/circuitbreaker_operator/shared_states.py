"""Keeps the shared hash of states where the functions do not: in a Cluster, and for isolated namespaces.

A hint names a breaker; its state is read and written. The sweep compares the whole hash with what was last seen, so a
lost hint, or a write that another operator overtook, is put right by then.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import CircuitBreakerError, UnknownBreakerError
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import Projection, Snapshot
from circuitbreaker_operator.errors import StoreUnavailableError
from circuitbreaker_operator.logs import Outage
from circuitbreaker_operator.metrics import Book
from circuitbreaker_operator.settings import Settings
from circuitbreaker_operator.store import BATCH, Store

logger = logging.getLogger(__name__)

_MOST_WAITING: Final = 100_000  # anybody can publish names; those beyond it are left to the sweep


class SharedStates:
    """Breakers to look at come from `look`; `run` writes what they say."""

    def __init__(self, settings: Settings, store: Store, book: Book) -> None:
        self._settings = settings
        self._store = store
        self._book = book
        self._waiting: dict[BreakerKey, None] = {}
        self._wake = asyncio.Event()
        self._outage = Outage(logger, "writing the shared hash of states")
        self._kept = settings.projection is Projection.MESSAGES

    def look(self, key: BreakerKey) -> None:
        """Something happened to that breaker, or is said to have."""
        watched = not self._settings.namespaces or key.namespace in self._settings.namespaces
        if self._kept and watched and len(self._waiting) < _MOST_WAITING:
            self._waiting[key] = None
            self._wake.set()

    def compare(self, shown: Mapping[BreakerKey, str]) -> int:
        """Looks at each breaker whose field says something else than was last seen of it; says how many there are."""
        wrong = [key for key, seen in self._book.all() if shown.get(key) != seen.state.value] if self._kept else []
        for key in wrong:
            self.look(key)
        return len(wrong)

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            await self._wake.wait()
            await self._store.up.wait()
            self._wake.clear()
            while self._waiting:
                some = list(self._waiting)[:BATCH]
                for key in some:
                    del self._waiting[key]
                try:
                    await self._write(some)
                except StoreUnavailableError:
                    self._waiting |= dict.fromkeys(some)
                    self._wake.set()
                    break
                except CircuitBreakerError as error:
                    self._outage.failed(error, remedy="those who read it alone see old states until that is put right")
                else:
                    self._outage.recovered()

    async def _write(self, keys: list[BreakerKey]) -> None:
        answers = await self._store.batch([protocol.observe(self._settings.keys.breaker(key)) for key in keys])
        states, gone = {}, []
        for key, answer in zip(keys, answers, strict=True):
            if isinstance(answer, UnknownBreakerError):
                gone.append(key)
            elif isinstance(answer, Snapshot) and answer.projection is Projection.MESSAGES:
                states[key] = answer.state.value
        if states:
            await self._store.show_states(states)
        if gone:
            await self._store.hide_states(gone)
