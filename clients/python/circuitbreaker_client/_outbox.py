"""Outcomes on their way to Redis. Pure: it is told the time, in seconds of any monotonic clock.

One batch is in flight at a time; it keeps its number and its runs until Redis has acknowledged it, however often it is
sent. What has become older than `max_age_seconds` goes under generation 0: it adds to totals and decides nothing, so
its order does not matter and it is kept as one number a letter. Younger outcomes are bounded by MAX_RUNS_KEPT runs.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from circuitbreaker_contract.protocol import MAX_RUN, MAX_RUNS

MAX_RUNS_KEPT: Final = 8 * MAX_RUNS  # some 2,000 changes between success and failure within ten seconds of silence
_TOO_OLD: Final = (0, 0)
_REMEMBERED_SECONDS: Final = 300.0  # half of REPORTER_KEPT_MS in rules.py
_TOGETHER_SECONDS: Final = 0.5  # batches of one generation that come this close are sent as one


@dataclass(slots=True)
class Batch:
    """Runs of one (incarnation, generation), in order; `at` is when the oldest of them was taken up."""

    order: tuple[int, int]
    at: float
    runs: list[tuple[str, int]]
    seq: int = 0

    @property
    def count(self) -> int:
        return sum(count for _, count in self.runs)


class Outbox:
    """`number` gives the next batch its seq: rising, not necessarily by one."""

    def __init__(self, max_age_seconds: float, number: Callable[[], int]) -> None:
        self._max_age_seconds = max_age_seconds
        self._number = number
        self._waiting: deque[Batch] = deque()
        self._aged: Counter[str] = Counter()
        self._sent: Batch | None = None
        self._last: tuple[int, float] | None = None  # the seq that Redis knows, and since when
        self.dropped = 0  # outcomes, since the beginning

    def __bool__(self) -> bool:
        return self._sent is not None or bool(self._waiting) or bool(self._aged)

    @property
    def buffered(self) -> int:
        sent = self._sent.count if self._sent else 0
        return sent + sum(batch.count for batch in self._waiting) + self._aged.total()

    def add(self, order: tuple[int, int], runs: list[tuple[str, int]], now: float) -> None:
        last = self._waiting[-1] if self._waiting else None
        if last is not None and last.order == order and now - last.at < _TOGETHER_SECONDS:
            _extend(last.runs, runs)
        else:
            self._waiting.append(Batch(order, now, [*runs]))
        self._bound(now)

    def next(self, now: float) -> Batch | None:
        """The batch to send now; the same one again until `acknowledged`."""
        self._age(now)
        if self._sent is None and self._waiting:
            self._sent = self._taken(self._waiting)
        if self._sent is None and self._aged:
            runs = [run for letter, count in self._aged.items() for run in _split(letter, count)]
            self._aged = Counter()
            for letter, count in runs[MAX_RUNS:]:
                self._aged[letter] += count
            self._sent = Batch(_TOO_OLD, now, runs[:MAX_RUNS], self._number())
        if self._sent is not None and now - self._sent.at > self._max_age_seconds:
            self._sent.order = _TOO_OLD
        return self._sent

    def acknowledged(self, now: float) -> int:
        """Redis has the batch; how many outcomes that were."""
        count = self._sent.count if self._sent else 0
        self._last = (self._sent.seq, now) if self._sent else None
        self._sent = None
        return count

    def repeatable(self, now: float) -> Batch | None:
        """A batch with the number of the last one that Redis has, while it knows that: it counts nothing.

        Of a thousand clients it may have forgotten this one. Then one ignored outcome is counted, and nothing in force.
        """
        if self._last is None or now - self._last[1] >= _REMEMBERED_SECONDS:
            return None
        return Batch(_TOO_OLD, now, [("I", 1)], self._last[0])

    def discard(self) -> int:
        """Forgets everything; how many outcomes that were."""
        count = self.buffered
        self._waiting.clear()
        self._aged.clear()
        self._sent = self._last = None
        return count

    def _taken(self, waiting: deque[Batch]) -> Batch:
        first = waiting[0]
        runs = [part for letter, count in first.runs for part in _split(letter, count)]
        if len(runs) <= MAX_RUNS:
            waiting.popleft()
        else:
            first.runs = runs[MAX_RUNS:]
        return Batch(first.order, first.at, runs[:MAX_RUNS], self._number())

    def _age(self, now: float) -> None:
        while self._waiting and now - self._waiting[0].at > self._max_age_seconds:
            for letter, count in self._waiting.popleft().runs:
                self._aged[letter] += count

    def _bound(self, now: float) -> None:
        self._age(now)
        over = sum(len(batch.runs) for batch in self._waiting) - MAX_RUNS_KEPT
        while over > 0:
            oldest = self._waiting[0]
            cut = min(over, len(oldest.runs))
            self.dropped += sum(count for _, count in oldest.runs[:cut])
            del oldest.runs[:cut]
            over -= cut
            if not oldest.runs:
                self._waiting.popleft()


def _extend(runs: list[tuple[str, int]], more: list[tuple[str, int]]) -> None:
    if runs and more and runs[-1][0] == more[0][0]:
        runs[-1] = (runs[-1][0], runs[-1][1] + more[0][1])
        runs.extend(more[1:])
    else:
        runs.extend(more)


def _split(letter: str, count: int) -> list[tuple[str, int]]:
    full, rest = divmod(count, MAX_RUN)
    return [(letter, MAX_RUN)] * full + ([(letter, rest)] if rest else [])
