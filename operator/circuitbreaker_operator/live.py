"""What the page shows, kept current: rows of all breakers, and a stream of those that changed.

It is told of changes by the book (what the operator saw in Redis) and by the cache (resources), and only notes which
rows are out of date: they are made when somebody looks. While somebody does, a hint makes it read the breaker at once,
since the reflector waits for the API server, and people do not. What it reads stays here: the book is for statuses.

A change is one frame for all viewers. Frames are numbered; the newest are kept, so that a viewer whose connection broke
goes on where it was, and whoever is too far behind is told to fetch the list again. One that does not read is cut off.
"""

import asyncio
import json
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import CircuitBreakerError
from circuitbreaker_contract.keys import BreakerKey, Keys
from circuitbreaker_contract.state import Snapshot
from circuitbreaker_operator import rows
from circuitbreaker_operator.cache import Cache
from circuitbreaker_operator.metrics import Book
from circuitbreaker_operator.plan import own
from circuitbreaker_operator.store import BATCH, Store

logger = logging.getLogger(__name__)

MOST_VIEWERS: Final = 64
_PACE_SECONDS: Final = 0.1  # between two frames, so that a storm is told in bundles
_ROWS_OF_A_FRAME: Final = 200  # some milliseconds of work: others get their turn between
_FRAMES_WAITING: Final = 128
_KEPT_BYTES: Final = 1_000_000
_PULSE_SECONDS: Final = 1.0
_LONGEST_SILENCE_SECONDS: Final = 3.0
_FRESH_SECONDS: Final = 1.0  # what was read this lately is not read again
_CLOCK_STEP_MS: Final = 5_000  # a snapshot this much older is of another clock, not of an earlier moment
_LOOKED_AT_SECONDS: Final = 10.0  # what nobody has on the screen is left to the book
_SHORT_HISTORY: Final = 8
_DIGITS: Final = 15  # of a frame's number; Python refuses to read one of thousands


class TooManyViewersError(Exception):
    """As many pages are open as are served."""


@dataclass(frozen=True, slots=True)
class _Source:
    """What a leader reads from."""

    store: Store
    keys: Keys
    owner: str


class Viewer:
    """One open stream. Frames end when it is cut off for not reading, or when the operator stops."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(_FRAMES_WAITING)
        self.cut = False

    def put(self, frame: bytes | None) -> None:
        try:
            self._queue.put_nowait(frame)
        except asyncio.QueueFull:
            self.cut = True
            self._queue = asyncio.Queue(1)
            self._queue.put_nowait(None)

    async def frames(self) -> AsyncIterator[bytes]:
        while not self.cut and (frame := await self._queue.get()) is not None:
            yield frame


class Live:
    """`condition` says how the operator is, as the page shows it; a dict of JSON."""

    def __init__(self, book: Book, cache: Cache, *, condition: Callable[[], dict[str, Any]]) -> None:
        self._book, self._cache, self._condition = book, cache, condition
        self._boot = secrets.token_hex(4)
        self._source: _Source | None = None
        self._past = rows.Past()
        self._rows: dict[BreakerKey, bytes] = {}
        self._stale: dict[BreakerKey, None] = {}
        self._looked_at: dict[BreakerKey, tuple[Snapshot, float]] = {}  # newer than the book, or was; and when
        self._whole: set[BreakerKey] = set()  # of these the hour before our start has been read
        self._to_look: dict[BreakerKey, None] = {}
        self._looks, self._wakes = asyncio.Event(), asyncio.Event()
        self._making = asyncio.Lock()
        self._viewers: set[Viewer] = set()
        self._number = 0
        self._kept: deque[tuple[int, bytes]] = deque()
        self._kept_bytes = 0
        self._clock_ahead_ms = 0.0  # Redis' clock, which all times are of, before ours
        book.told, cache.told = self._noted, self._changed

    @property
    def viewers(self) -> int:
        return len(self._viewers)

    @property
    def has_room(self) -> bool:
        return len(self._viewers) < MOST_VIEWERS

    def lead(self, store: Store, keys: Keys, owner: str) -> None:
        """From now on there is a Redis to read from."""
        self._source = _Source(store, keys, owner)

    # -- what happens

    def heard(self, key: BreakerKey) -> None:
        """Something happened to that breaker, or is said to have; nobody looks: then the book will tell in time."""
        if self._viewers and self._cache.get(key) is not None:
            self._to_look[key] = None
            self._looks.set()

    def _noted(self, key: BreakerKey, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            self._looked_at.pop(key, None)
            self._whole.discard(key)
            self._past.drop(key)
        else:
            self._learn(key, snapshot)
            known = self._looked_at.get(key)
            if known is not None and _newer(snapshot, known[0]):
                del self._looked_at[key]
        self._changed(key)

    def _changed(self, key: BreakerKey) -> None:
        if self._cache.get(key) is None and key not in self._rows:
            self._stale.pop(key, None)  # it came and went, and nobody was told of it
            return
        self._stale[key] = None
        self._wakes.set()

    def _learn(self, key: BreakerKey, snapshot: Snapshot) -> None:
        self._clock_ahead_ms = snapshot.now_ms - time.time() * 1000
        self._past.learn(key, snapshot.history, snapshot.now_ms)

    def _seen(self, key: BreakerKey) -> Snapshot | None:
        known = self._looked_at.get(key)
        return known[0] if known is not None else self._book.get(key)

    # -- what is shown

    def status(self) -> dict[str, Any]:
        """How the operator is, at `nowMs` of the clock that all times are of."""
        return self._condition() | {"nowMs": round(time.time() * 1000 + self._clock_ahead_ms)}

    async def listing(self) -> bytes:
        """All rows as JSON; with the number of the last frame that they include."""
        await self._refresh()
        head = {"at": self._id(), "status": self.status(), "columns": rows.COLUMNS}
        made = list(self._rows.values())
        return await asyncio.to_thread(lambda: _json(head)[:-1] + b',"rows":[' + b",\n".join(made) + b"]}")

    async def whole(self, key: BreakerKey, known: str) -> dict[str, Any] | None:
        """Everything about a breaker; None when there is no such resource. Who has its `known` history gets no other.

        While Redis is away it is what was last seen, `stale`.
        """
        resource = self._cache.get(key)
        if resource is None:
            return None
        seen, stale = self._seen(key), True
        if self._source is not None:
            try:
                if seen is None or rows.generation(seen) != known:
                    (seen,) = await self._read([key], history=protocol.MAX_HISTORY)
                else:
                    (seen,) = await self._read([key], history=1)  # the last one tells why it is in its state
                    if seen is not None and rows.generation(seen) != known:
                        (seen,) = await self._read([key], history=protocol.MAX_HISTORY)
                stale = False
            except CircuitBreakerError as error:
                logger.debug("the page shows what was last seen: %s", error)
        told = rows.whole(resource, seen)
        if seen is not None and rows.generation(seen) == known:
            told["history"] = None
        return told | {"stale": stale, "past": self._past.of(key), "status": self.status()}

    async def look(self, keys: Iterable[BreakerKey]) -> None:
        """Somebody has these breakers on the screen: what changed of them comes as a frame."""
        now = time.monotonic()
        ours = [key for key in keys if self._cache.get(key) is not None]
        due = [key for key in ours if now - self._looked_at.get(key, (None, 0.0))[1] > _FRESH_SECONDS]
        for history, some in (
            (protocol.MAX_HISTORY // 4, [key for key in due if key not in self._whole]),
            (_SHORT_HISTORY, [key for key in due if key in self._whole]),
        ):
            if some:
                await self._read(some, history=history)

    async def _read(self, keys: Sequence[BreakerKey], *, history: int) -> list[Snapshot | None]:
        """What Redis holds of these, each if it is the breaker of its resource. Raises CircuitBreakerError."""
        if self._source is None:
            return [None] * len(keys)
        source = self._source
        calls = [protocol.observe(source.keys.breaker(key), history=history) for key in keys]
        answers = await source.store.in_batches(calls)
        now = time.monotonic()
        found: list[Snapshot | None] = []
        for key, answer in zip(keys, answers, strict=True):
            resource = self._cache.get(key)
            mine = answer if isinstance(answer, Snapshot) else None
            mine = own(resource, mine, owner=source.owner) if resource is not None else None
            found.append(mine)
            before = self._seen(key)
            if mine is None or (before is not None and not _newer(mine, before)):
                continue
            self._learn(key, mine)
            if history >= protocol.MAX_HISTORY // 4:
                self._whole.add(key)
            # Of its history only why it is in its state: a whole one is twenty times as much.
            self._looked_at[key] = (replace(mine, history=mine.history[-1:]), now)
            self._changed(key)
        return found

    # -- streams

    @contextmanager
    def viewer(self, last: str) -> Iterator[Viewer]:
        """A stream that goes on after the frame `last`. Raises TooManyViewersError."""
        if not self.has_room:
            raise TooManyViewersError
        viewer = Viewer()
        missed = self._after(last)
        viewer.put(_frame("hello", _json({"resumed": missed is not None, "status": self.status()})))
        for frame in missed or ():
            viewer.put(frame)
        self._viewers.add(viewer)
        self._wakes.set()
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)

    def close(self) -> None:
        """Ends all streams."""
        for viewer in list(self._viewers):
            viewer.put(None)

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell(), name="page, changes")
            group.create_task(self._look_at_hints(), name="page, hints")
            group.create_task(self._pulse(), name="page, pulse")

    async def _tell(self) -> None:
        while True:
            await self._wakes.wait()
            self._wakes.clear()
            if self._viewers:  # else what is stale waits for the first one
                await self._refresh()
            await asyncio.sleep(_PACE_SECONDS)

    async def _look_at_hints(self) -> None:
        while True:
            await self._looks.wait()
            self._looks.clear()
            while self._to_look:
                some = list(self._to_look)[:BATCH]
                for key in some:
                    del self._to_look[key]
                try:
                    await self._read(some, history=_SHORT_HISTORY)
                except CircuitBreakerError as error:
                    logger.debug("the page waits for the next look: %s", error)
                    self._to_look.clear()  # Redis is away, and everything is looked at when it is back

    async def _pulse(self) -> None:
        said: dict[str, Any] = {}
        silent = 0.0
        while True:
            await asyncio.sleep(_PULSE_SECONDS)
            if not self._viewers:
                self._looked_at.clear()  # the book is enough for nobody
                continue
            silent += _PULSE_SECONDS
            condition = self._condition()
            if condition.get("redis"):  # else what is shown cannot be read again
                self._leave()
            if condition != said or silent >= _LONGEST_SILENCE_SECONDS:
                said, silent = condition, 0.0
                self._send(_frame("status", _json(self.status())))

    def _leave(self) -> None:
        """Forgets what was looked at and is not any more, once the book has heard of its transitions too."""
        before = time.monotonic() - _LOOKED_AT_SECONDS
        for key, seen in [(key, seen) for key, (seen, at) in self._looked_at.items() if at < before]:
            known = self._book.get(key)
            if known is not None and rows.generation(known) == rows.generation(seen):
                del self._looked_at[key]

    async def _refresh(self) -> None:
        """Makes the rows that are out of date, and tells the viewers of those that changed."""
        async with self._making:
            while self._stale:
                some = list(self._stale)[:_ROWS_OF_A_FRAME]
                changed, gone = [], []
                for key in some:
                    del self._stale[key]
                    made = self._row(key)
                    if made is None:
                        if self._rows.pop(key, None) is not None:
                            gone.append(str(key))
                    elif made != self._rows.get(key):
                        self._rows[key] = made
                        changed.append(made)
                if changed or gone:
                    self._publish(b'{"rows":[' + b",".join(changed) + b'],"gone":' + _json(gone) + b"}")
                await asyncio.sleep(0)

    def _row(self, key: BreakerKey) -> bytes | None:
        resource = self._cache.get(key)
        if resource is None:
            return None
        seen = self._seen(key)
        mine = seen if seen is not None and seen.uid == resource.uid else None
        return _json(rows.row(resource, mine, self._past.of(key)))

    def _publish(self, data: bytes) -> None:
        self._number += 1
        frame = _frame("rows", data, self._id())
        self._kept.append((self._number, frame))
        self._kept_bytes += len(frame)
        while self._kept_bytes > _KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft()[1])
        self._send(frame)

    def _send(self, frame: bytes) -> None:
        for viewer in self._viewers:
            viewer.put(frame)

    def _after(self, last: str) -> list[bytes] | None:
        """The frames after that one; None when they are not all there any more, or it is of another process."""
        boot, _, number = last.partition("-")
        if boot != self._boot or not number.isdecimal() or len(number) > _DIGITS:
            return None
        missed = [frame for kept, frame in self._kept if kept > int(number)]
        complete = len(missed) == self._number - int(number) and len(missed) < _FRAMES_WAITING // 2
        return missed if complete else None

    def _id(self) -> str:
        return f"{self._boot}-{self._number}"


def _newer(one: Snapshot, other: Snapshot) -> bool:
    return one.now_ms >= other.now_ms or other.now_ms - one.now_ms > _CLOCK_STEP_MS


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _frame(event: str, data: bytes, number: str = "") -> bytes:
    """One message of a stream of events. JSON has no line breaks, so its data is one line."""
    name = f"id: {number}\n" if number else ""
    return f"{name}event: {event}\ndata: ".encode() + data + b"\n\n"
