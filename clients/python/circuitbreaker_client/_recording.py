"""What has become of calls, on its way from the hot path to Redis: buffers, counters, reports.

A buffer is never exchanged while it is emptied: the first n marks are copied and then deleted, each in one step of the
interpreter, so that appending needs no lock and a mark always stays with the generation that permitted its call.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from math import inf
from time import perf_counter
from typing import Final

from circuitbreaker_client._estimate import TripEstimate
from circuitbreaker_client._outbox import Outbox
from circuitbreaker_client.outcomes import runs_of
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import NOT_PERMITTED_RUN, Outcome

KEPT_BUFFERS: Final = 64  # of earlier generations, for calls that began under them
KEPT_SECONDS: Final = 600.0
NO_ORDER: Final = (0, 0)  # the order of outcomes that no snapshot permitted: they add to totals

Runs = list[tuple[str, int]]


class Buffer(list[float]):
    """Marks of calls that one generation permitted; `local_order` is that of the local breaker, if that permitted."""

    __slots__ = ("local_order", "order", "retired_at")

    def __init__(self, order: tuple[int, int], local_order: tuple[int, int] | None) -> None:
        super().__init__()
        self.order = order
        self.local_order = local_order
        self.retired_at = inf


class Recording:
    """Of one breaker in one process. Its owner's lock guards all but `buffer.append` and `refusals.append`.

    `reports`: whether there is a Redis to report to.
    """

    __slots__ = (
        "_old",
        "buffer",
        "estimate",
        "outbox",
        "refusals",
        "refused",
        "reported",
        "reports",
        "tallies",
        "told",
    )

    def __init__(self, outbox: Outbox, policy: Policy, now: float) -> None:
        self.buffer = Buffer(NO_ORDER, None)
        self._old: list[Buffer] = []
        self.refusals: list[None] = []  # one for each call refused here and not counted yet
        self.outbox = outbox
        self.estimate = TripEstimate(policy, now)
        self.reports = True
        self.tallies: Counter[str] = Counter()
        self.refused = 0
        self.reported = 0
        self.told = 0  # how many dropped outcomes somebody was told of

    @property
    def has_any(self) -> bool:
        return bool(self.buffer or self.refusals or self._old)

    @property
    def buffered(self) -> int:
        return self.outbox.buffered + sum(map(len, self.buffers()))

    @property
    def outcomes(self) -> Mapping[Outcome, int]:
        return {outcome: self.tallies[outcome.value] for outcome in Outcome}

    def buffers(self) -> list[Buffer]:
        """Newest first."""
        return [self.buffer, *reversed(self._old)]

    def of(self, order: tuple[int, int]) -> Buffer:
        """The buffer of a generation that Redis has told; the newest one when that is gone."""
        known = (buffer for buffer in self.buffers() if buffer.order == order and buffer.local_order is None)
        return next(known, self.buffer)

    def renew(self, order: tuple[int, int], local_order: tuple[int, int] | None) -> None:
        """Another generation; calls that are under way still end in the old one's buffer."""
        self.buffer.retired_at = perf_counter()
        self._old = [*self._old, self.buffer][-KEPT_BUFFERS:]
        self.buffer = Buffer(order, local_order)

    def drain(self, now: float, slow_seconds: float, counted: Callable[[tuple[int, int], Runs], None]) -> int:
        """Empties everything, oldest first; how many outcomes and refusals that were.

        `counted` is told what a local breaker's generation has permitted; it may renew the buffer.
        """
        refused, total = len(self.refusals), 0
        if self._old:
            self._old = [old for old in self._old if old or now - old.retired_at < KEPT_SECONDS]
        for buffer in (*self._old, self.buffer):
            if count := len(buffer):
                marks = buffer[:count]
                del buffer[:count]
                total += count
                runs = runs_of(marks, slow_seconds)
                self._add(buffer.order, runs, now)
                if buffer.local_order is not None:
                    counted(buffer.local_order, runs)
        if refused:
            del self.refusals[:refused]
            self.refused += refused
            self.report(self.buffer.order, [(NOT_PERMITTED_RUN, refused)], now)
        return total + refused

    def add(self, order: tuple[int, int], outcome: Outcome, now: float) -> None:
        """One outcome that has passed no buffer."""
        self.tallies[outcome.value] += 1
        self.report(order, [(outcome.value, 1)], now)

    def report(self, order: tuple[int, int], runs: Runs, now: float) -> None:
        if self.reports:
            self.outbox.add(order, runs, now)

    def _add(self, order: tuple[int, int], runs: Runs, now: float) -> None:
        for letter, count in runs:
            self.tallies[letter] += count
        self.estimate.taken(runs, now)
        self.report(order, runs, now)
