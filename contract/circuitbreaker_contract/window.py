"""The sliding window of the two rates: the last N outcomes in order of arrival, or the outcomes of the last while.

Pure twin of functions/window.lua. Outcomes are letters (S F L M) and come in runs of equal ones. `stretch` says for how
many outcomes of a run the sums move alike, so that a rule that is linear in them can be tested for all at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

BUCKETS: Final = 20  # of a time window

Run = tuple[str, int]


def is_bad(letter: str) -> bool:
    return letter in {"F", "M"}


def is_slow(letter: str) -> bool:
    return letter in {"L", "M"}


class Sums(NamedTuple):
    """What is in the window: all calls, and the failures and the slow calls among them."""

    calls: int = 0
    failures: int = 0
    slow: int = 0

    def plus(self, letter: str, count: int) -> "Sums":
        return Sums(self.calls + count, self.failures + count * is_bad(letter), self.slow + count * is_slow(letter))


class Stretch(NamedTuple):
    """The next `length` outcomes of a run, each of which pushes a `leaving` out (None: nothing leaves)."""

    length: int
    leaving: str | None


@dataclass(frozen=True, slots=True)
class CountWindow:
    """The last `size` outcomes, as runs, oldest first."""

    size: int
    runs: tuple[Run, ...] = ()

    @property
    def filled(self) -> int:
        return sum(count for _, count in self.runs)

    def sums(self, _now_ms: int) -> Sums:
        total = Sums()
        for letter, count in self.runs:
            total = total.plus(letter, count)
        return total

    def at(self, _now_ms: int) -> "CountWindow":
        return self

    def stretch(self, letter: str, count: int) -> Stretch:
        room = self.size - self.filled
        if room > 0:
            return Stretch(min(count, room), None)
        oldest, length = self.runs[0]
        if len(self.runs) == 1 and oldest == letter:
            return Stretch(count, letter)  # all alike: nothing changes
        return Stretch(min(count, length), oldest)

    def slid(self, _now_ms: int, letter: str, count: int) -> "CountWindow":
        """With `count` more outcomes, the oldest ones pushed out."""
        runs = [*self.runs]
        if runs and runs[-1][0] == letter:
            runs[-1] = (letter, runs[-1][1] + count)
        else:
            runs.append((letter, count))
        return CountWindow(self.size, _newest(runs, self.size))

    def resized(self, size: int) -> "CountWindow":
        """Keeps the newest outcomes that fit."""
        return CountWindow(size, _newest([*self.runs], size))


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """The outcomes of the last `length_ms`, in 20 buckets aligned to the epoch: bucket number -> its sums."""

    length_ms: int
    buckets: Mapping[int, Sums] = field(default_factory=lambda: MappingProxyType({}))

    def bucket_at(self, now_ms: int) -> int:
        return now_ms * BUCKETS // self.length_ms

    def sums(self, now_ms: int) -> Sums:
        """Of the current bucket and the 19 before; later ones come from a clock that has jumped back."""
        kept = self.at(now_ms).buckets.values()
        return Sums(*(sum(column) for column in zip(*kept, strict=True))) if kept else Sums()

    def at(self, now_ms: int) -> "TimeWindow":
        """Without the buckets that do not belong to the window at that time."""
        current = self.bucket_at(now_ms)
        kept = {number: sums for number, sums in self.buckets.items() if current - BUCKETS < number <= current}
        return self if len(kept) == len(self.buckets) else TimeWindow(self.length_ms, kept)

    def stretch(self, _letter: str, count: int) -> Stretch:
        return Stretch(count, None)

    def slid(self, now_ms: int, letter: str, count: int) -> "TimeWindow":
        """With `count` more outcomes in the current bucket."""
        current = self.bucket_at(now_ms)
        sums = self.buckets.get(current, Sums()).plus(letter, count)
        return TimeWindow(self.length_ms, {**self.buckets, current: sums})


Window = CountWindow | TimeWindow


def empty(calls: int, length_ms: int) -> Window:
    """A window of `calls` outcomes, or (0 calls) of `length_ms`."""
    return CountWindow(calls) if calls else TimeWindow(length_ms)


def reshaped(window: Window, calls: int, length_ms: int) -> Window:
    """After an edit: a count window keeps its newest outcomes, any other change starts empty."""
    match window:
        case CountWindow() if calls:
            return window if calls == window.size else window.resized(calls)
        case TimeWindow() if not calls and length_ms == window.length_ms:
            return window
    return empty(calls, length_ms)


def _newest(runs: list[Run], size: int) -> tuple[Run, ...]:
    over = sum(count for _, count in runs) - size
    first = 0
    while over > 0:
        letter, count = runs[first]
        if count > over:
            runs[first] = (letter, count - over)
            break
        over -= count
        first += 1
    return tuple(runs[first:])
