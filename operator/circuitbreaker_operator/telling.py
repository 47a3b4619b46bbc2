"""Whether Events are worth waiting for.

An Event goes before the status that tells the same, so that none is lost. Where Events cannot be written and all else
can (a webhook in their way, an etcd of their own that is away) statuses would stand still for as long: after a while
they go on without. A webhook may be in the way of some namespaces only, so each is judged by what failed there, and by
what failed elsewhere only while no Event is taken anywhere.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

PATIENCE_SECONDS: Final = 10.0
PAUSE_SECONDS: Final = 5.0  # between Events that are tried meanwhile; one may take as long as a request may
MEMORY_SECONDS: Final = 300.0  # without a failure for that long, the next one begins another outage


@dataclass(slots=True)
class _Failing:
    """Since when Events fail in a namespace, and when another write was taken for the first time since."""

    since: float
    last: float
    accepted_at: float = float("inf")
    is_alone: bool = False

    def is_hopeless(self, now: float) -> bool:
        return self.is_alone and now - self.since >= PATIENCE_SECONDS


class Telling:
    """Times are those of `clock`, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failing: dict[str, _Failing] = {}
        self._posted_at = float("-inf")
        self._try_at = 0.0
        self.cause: object = ""

    def is_hopeless(self, namespace: str) -> bool:
        """Only Events fail there, and that for a while."""
        now = self._now()
        own = self._failing.get(namespace)
        return own.is_hopeless(now) if own is not None else self._is_general(now)

    def is_worth_a_try(self, namespace: str) -> bool:
        """Not while it is hopeless, but for one now and then."""
        if not self.is_hopeless(namespace):
            return True
        now = self._clock()
        if now >= self._try_at:
            self._try_at = now + PAUSE_SECONDS
            return True
        own = self._failing.get(namespace)
        if own is not None:
            own.last = now  # as far as anybody knows
        return False

    def accepted(self) -> None:
        """The API server took a write that is no Event."""
        now = self._clock()
        for each in self._failing.values():
            each.accepted_at = min(each.accepted_at, now)

    def unwritten(self, namespace: str) -> None:
        """A status could not be written either: both may come back together, so Events there are waited for again."""
        if self.is_hopeless(namespace):
            now = self._clock()
            self._failing[namespace] = _Failing(now, now)

    def posted(self, namespace: str) -> None:
        """It took an Event, or refused it for what it is."""
        if self._failing.pop(namespace, None) is not None:
            self._try_at = 0.0  # others may be taken as well
        self._posted_at = self._clock()

    def failed(self, namespace: str, began_at: float, cause: object) -> bool:
        """An Event could not be written that was sent at `began_at`; whether that is so of Events alone.

        It is when another write was taken since they fail, and before this one was sent: what fails together may
        also come back together, in between.
        """
        self.cause = cause
        now = self._now()
        own = self._failing.get(namespace)
        if own is None:
            own = self._failing[namespace] = _Failing(now, now)
            first = min(self._failing.values(), key=lambda each: each.since)
            if first.is_alone and first.since > self._posted_at:  # of the same outage
                own.since, own.accepted_at = first.since, first.accepted_at
        own.last = now
        own.is_alone = own.is_alone or own.accepted_at <= began_at
        return own.is_alone

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
        return several and any(each.is_hopeless(now) for each in current)
