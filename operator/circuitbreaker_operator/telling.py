"""Whether Events are worth waiting for.

An Event goes before the status that tells the same, so that none is lost. Where Events cannot be written and all else
can (a webhook in their way, an etcd of their own that is away) statuses would stand still for as long: after a while
they go on without.
"""

import time
from collections.abc import Callable
from typing import Final

PATIENCE_SECONDS: Final = 10.0
PAUSE_SECONDS: Final = 5.0  # between Events that are tried meanwhile; one may take as long as a request may


class Telling:
    """Times are those of `clock`, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failing_since: float | None = None
        self._accepted_at = float("-inf")
        self._is_alone = False
        self._try_at = 0.0
        self.cause: object = ""

    @property
    def is_hopeless(self) -> bool:
        """Only Events fail, and that for a while."""
        return self._is_alone and self._clock() - (self._failing_since or 0.0) >= PATIENCE_SECONDS

    def is_worth_a_try(self) -> bool:
        """Not while it is hopeless, but for one now and then."""
        if not self.is_hopeless:
            return True
        now = self._clock()
        if now < self._try_at:
            return False
        self._try_at = now + PAUSE_SECONDS
        return True

    def accepted(self) -> None:
        """The API server took a write that is no Event."""
        self._accepted_at = self._clock()

    def posted(self) -> None:
        """It took an Event, or refused it for what it is."""
        self._failing_since, self._is_alone = None, False

    def failed(self, began_at: float, cause: object) -> bool:
        """An Event could not be written that was sent at `began_at`; whether that is so of Events alone.

        It is when another write was taken since they fail, and before this one was sent: what fails together may
        also come back together, in between.
        """
        self.cause = cause
        if self._failing_since is None:
            self._failing_since = self._clock()
        elif self._failing_since < self._accepted_at <= began_at:
            self._is_alone = True
        return self._is_alone
