"""Whether Events are worth waiting for.

An Event goes before the status that tells the same, so that none is lost. Where Events cannot be written and all else
can (a webhook in their way, an etcd of their own that is away) statuses would stand still for as long: after a while
they go on without, and an Event is tried beside them now and then. A webhook may be in the way of some namespaces only,
so each is judged by what failed there, and by nothing else.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

PATIENCE_SECONDS: Final = 10.0  # after another write was taken; then one that fails is the last to be waited for
BUSY_SECONDS: Final = 60.0  # the same where the API server only asks to come back, and takes no Event of anybody
LONGEST_BUSY_SECONDS: Final = 600.0  # and where it takes those of others
PAUSE_SECONDS: Final = 5.0  # of a namespace between two that are tried beside
TRIES: Final = 4  # of all namespaces at once: one that nobody answers takes a request's place for long
MEMORY_SECONDS: Final = 300.0  # without a failure for that long, the next one begins another outage
_FRESH_SECONDS: Final = 90.0  # the same while there is patience: whatever failed is tried again within a minute
_CURRENT_SECONDS: Final = 5.0
_MOMENT_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Failing:
    """A namespace in which Events fail. `accepted_at`: when another write was taken since the first was sent."""

    since: float
    last: float
    accepted_at: float
    is_busy: bool = True  # it was only asked to come back
    is_hopeless: bool = False
    written_at: float = float("-inf")  # its last status that was taken
    try_at: float = 0.0
    tried_at: float = float("-inf")  # of the one that is under way


class Telling:
    """Times are those of `clock`, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failing: dict[str, _Failing] = {}
        self._posted_at = float("-inf")
        self._accepted_at = float("-inf")
        self._tries = 0
        self.cause: object = ""

    def is_hopeless(self, namespace: str) -> bool:
        """Only Events fail there, and that for a while."""
        own = self._of(namespace)
        return own is not None and own.is_hopeless

    def is_failing(self, namespace: str) -> bool:
        """The last one there was not taken."""
        return self._of(namespace) is not None

    def takes_others(self) -> bool:
        """Writes that are no Events are taken: one that fails tells nothing of the API server."""
        return self._clock() - self._accepted_at < _CURRENT_SECONDS

    def accepted(self) -> None:
        """The API server took a write that is no Event."""
        now = self._accepted_at = self._clock()
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
        if own is not None and own.is_hopeless and now >= own.written_at + PATIENCE_SECONDS:
            self._failing[namespace] = _Failing(now, now, float("inf"))

    def posted(self, namespace: str) -> None:
        """It took an Event, or refused it for what it is."""
        now = self._posted_at = self._clock()
        if self._failing.pop(namespace, None) is not None:
            for each in self._failing.values():
                each.try_at = min(each.try_at, now)  # they may be taken as well

    def failed(self, namespace: str, began_at: float, cause: object, *, busy: bool = False) -> bool:
        """An Event could not be written that was sent at `began_at`; True when none is waited for there from now on.

        Not before another write was taken and this one was sent after it: what fails together may also come back
        together, in between. `busy`: it was asked to come back later.
        """
        self.cause = cause
        now, own = self._clock(), self._of(namespace)
        if own is None:
            taken_at = self._accepted_at if self._accepted_at > began_at else float("inf")
            own = self._failing[namespace] = _Failing(now, now, taken_at)
        own.last = now
        own.is_busy &= busy
        if own.is_hopeless or own.accepted_at > began_at or not self._has_waited(own, now):
            return False
        own.is_hopeless, own.try_at = True, now + PAUSE_SECONDS
        return True

    def may_try(self, namespace: str) -> bool:
        """Whether one is tried beside its status, where it is hopeless; `tried` has to follow."""
        own = self._of(namespace)
        if own is None or not own.is_hopeless or self._clock() < own.try_at or self._tries >= TRIES:
            return False
        own.try_at, own.tried_at = float("inf"), self._clock()
        self._tries += 1
        return True

    def finds_out(self, namespace: str) -> bool:
        """One was sent a moment ago: others wait for what it finds out."""
        own = self._failing.get(namespace)
        return own is not None and self._clock() - own.tried_at < _MOMENT_SECONDS

    def tried(self, namespace: str) -> None:
        self._tries -= 1
        own = self._failing.get(namespace)
        if own is not None:
            own.try_at, own.tried_at = self._clock() + PAUSE_SECONDS, float("-inf")

    def _has_waited(self, own: _Failing, now: float) -> bool:
        if own.is_busy:
            alone = now - max(own.since, self._posted_at)
            return alone >= BUSY_SECONDS or now - own.since >= LONGEST_BUSY_SECONDS
        return now - own.accepted_at >= PATIENCE_SECONDS

    def _of(self, namespace: str) -> _Failing | None:
        """What is known of it; failures of long ago are forgotten."""
        own, now = self._failing.get(namespace), self._clock()
        if own is not None and now - own.last >= (MEMORY_SECONDS if own.is_hopeless else _FRESH_SECONDS):
            del self._failing[namespace]
            return None
        return own
