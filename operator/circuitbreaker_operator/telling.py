"""Whether Events are worth waiting for.

An Event goes before the status that tells the same, so that none is lost. Where Events cannot be written and all else
can (a webhook in their way, an etcd of their own that is away) statuses would stand still for as long: after a while
they go on without, and an Event is tried now and then. A webhook may be in the way of some namespaces only, so each is
judged by what failed there; where no Event is taken anywhere, what the others found out makes that quicker.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final

PATIENCE_SECONDS: Final = 10.0
BUSY_SECONDS: Final = 60.0  # the same where the API server only asks to come back, while it takes none at all
PAUSE_SECONDS: Final = 5.0  # of a namespace between Events that are tried meanwhile
MEMORY_SECONDS: Final = 300.0  # without a failure for that long, the next one begins another outage
FEW: Final = 8  # half of the requests that may be in flight: one that nobody answers takes as long as a request may
_QUICK_SECONDS: Final = 1.0  # an answer that took longer was none


class Chance(Enum):
    """What becomes of an Event: sent, sent later, or left out."""

    SEND = "send"
    WAIT = "wait"
    DROP = "drop"


@dataclass(slots=True)
class _Failing:
    """A namespace in which Events fail: since when, and when another write was taken for the first time since."""

    since: float
    last: float
    failures: int = 0
    accepted_at: float = float("inf")
    is_alone: bool = False
    is_busy: bool = True  # it was only asked to come back
    written_at: float = float("-inf")  # its last status that was taken
    sent_at: float = float("-inf")  # the Event that is under way
    try_at: float = 0.0


class Telling:
    """Times are those of `clock`, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failing: dict[str, _Failing] = {}
        self._posted_at = float("-inf")
        self._doubtful = 0  # Events under way that may well fail
        self.cause: object = ""

    def is_hopeless(self, namespace: str) -> bool:
        """Only Events fail there, and that for a while."""
        now = self._now()
        own = self._failing.get(namespace)
        return own is not None and self._has_waited(own, now)

    def chance(self, namespace: str) -> Chance:
        now = self._now()
        own = self._failing.get(namespace)
        if own is None or not self._has_waited(own, now):
            return Chance.WAIT if self._is_doubtful(own, now) and self._doubtful >= FEW else Chance.SEND
        if now < own.sent_at + _QUICK_SECONDS:
            return Chance.WAIT  # for what is found out in this moment
        return Chance.SEND if now >= own.try_at and self._doubtful < FEW else Chance.DROP

    @contextmanager
    def sending(self, namespace: str) -> Iterator[None]:
        """While an Event that had the chance is under way."""
        own = self._failing.get(namespace)
        is_doubtful = self._is_doubtful(own, self._now())
        if own is not None:
            own.sent_at, own.try_at = self._clock(), float("inf")
        self._doubtful += is_doubtful
        try:
            yield
        finally:
            self._doubtful -= is_doubtful
            if own is not None:
                own.sent_at, own.try_at = float("-inf"), self._clock() + PAUSE_SECONDS

    def accepted(self) -> None:
        """The API server took a write that is no Event."""
        now = self._clock()
        for each in self._failing.values():
            each.accepted_at = min(each.accepted_at, now)

    def written(self, namespace: str) -> None:
        """It took a status there."""
        own = self._failing.get(namespace)
        if own is not None:
            own.written_at = self._clock()

    def unwritten(self, namespace: str) -> None:
        """A status could not be written either: both may come back together, so Events there are waited for again."""
        own, now = self._failing.get(namespace), self._clock()
        if own is not None and self._has_waited(own, now) and now >= own.written_at + PATIENCE_SECONDS:
            self._failing[namespace] = _Failing(now, now)

    def posted(self, namespace: str) -> None:
        """It took an Event, or refused it for what it is."""
        self._posted_at = self._clock()
        if self._failing.pop(namespace, None) is not None:
            for each in self._failing.values():
                each.try_at = min(each.try_at, self._posted_at)  # they may be taken as well

    def failed(self, namespace: str, began_at: float, cause: object, *, busy: bool = False) -> bool:
        """An Event could not be written that was sent at `began_at`; whether that is so of Events alone.

        It is when another write was taken since they fail, and before this one was sent: what fails together may
        also come back together, in between. `busy`: it was asked to come back later.
        """
        self.cause = cause
        now = self._now()
        own = self._failing.setdefault(namespace, _Failing(now, now))
        own.failures += 1
        own.last = now
        own.is_busy &= busy
        first = min(self._failing.values(), key=lambda each: each.since)
        # One failure may be one; that of an outage that is known is not waited for once more.
        sure = own.failures > 1 or now - began_at >= _QUICK_SECONDS
        if sure and not busy and first.since > self._posted_at and self._has_waited(first, now):
            own.since, own.accepted_at = first.since, min(own.accepted_at, first.accepted_at)
        own.is_alone = own.is_alone or own.accepted_at <= began_at
        return own.is_alone

    def _has_waited(self, own: _Failing, now: float) -> bool:
        if own.is_busy:
            return own.is_alone and now - max(own.since, self._posted_at) >= BUSY_SECONDS
        return own.is_alone and now - own.since >= PATIENCE_SECONDS

    def _is_doubtful(self, own: _Failing | None, now: float) -> bool:
        return own is not None or self._is_general(now)

    def _now(self) -> float:
        """The time; failures of long ago are forgotten."""
        now = self._clock()
        for namespace in [name for name, each in self._failing.items() if now - each.last >= MEMORY_SECONDS]:
            del self._failing[namespace]
        return now

    def _is_general(self, now: float) -> bool:
        """They fail in several namespaces, and are taken in none."""
        current = self._failing.values()
        several = len(current) > 1 and all(each.since > self._posted_at for each in current)
        return several and any(self._has_waited(each, now) for each in current)
