"""What was measured, and whether it is flat. Values in, values out."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import linear_regression, median
from typing import NamedTuple

MOST_GAPS = 3  # samples in each quarter below which nothing is said


class Sample(NamedTuple):
    """One figure of one process at one time. `life` counts the process' restarts: another one starts from nothing."""

    at_seconds: float
    process: str
    life: int
    figure: str
    value: float


@dataclass(frozen=True)
class Life:
    """A figure of one life of a process. Numbers alone: who measures memory for hours must not need more and more."""

    at_seconds: "array[float]" = field(default_factory=lambda: array("d"))
    values: "array[float]" = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.values)


class Samples:
    """All that were taken."""

    def __init__(self) -> None:
        self._lives: dict[tuple[str, str], dict[int, Life]] = {}

    def add(self, samples: Iterable[Sample]) -> None:
        for each in samples:
            life = self._lives.setdefault((each.process, each.figure), {}).setdefault(each.life, Life())
            life.at_seconds.append(each.at_seconds)
            life.values.append(each.value)

    def __iter__(self) -> Iterator[Sample]:
        """Figure by figure, each in the order of time."""
        for (process, figure), lives in self._lives.items():
            for number, life in lives.items():
                for at_seconds, value in zip(life.at_seconds, life.values, strict=True):
                    yield Sample(at_seconds, process, number, figure, value)

    def rows(self) -> "list[Row]":
        """A row for each figure, in the order of their first samples."""
        return [_row(*name, max(lives.values(), key=len)) for name, lives in self._lives.items()]


@dataclass(frozen=True)
class Limit:
    """What a figure may grow by. `per_hour` of the fitted line; what stays below `noise` in all is no growth.

    `pooled`: most of it are pools, which are small for some time after an outage and fill again.
    """

    per_hour: float
    noise: float
    pooled: bool = False


LIMITS = {
    "rss_mib": Limit(4.0, 3.0),
    "threads": Limit(1.0, 3.0),
    "tasks": Limit(4.0, 8.0),
    "fds": Limit(2.0, 6.0, pooled=True),
}


@dataclass(frozen=True)
class Row:
    """One figure of one process over its longest life. `flat` is None when there is too little to say it."""

    process: str
    figure: str
    samples: int
    hours: float
    first: float
    last: float
    most: float
    per_hour: float
    flat: bool | None


def _row(process: str, figure: str, life: Life) -> Row:
    """Flat: the line through the last three quarters rises by less than the limit, or comes to no more than noise.

    The first quarter is left out of the line: caches fill then, and an allocator takes what it will keep. A sample
    counts as the median of itself and its neighbours: a thousand tasks for a moment, when the watch lists anew, are no
    growth, and would tilt the line by their date. Pools that were small for a quarter of an hour would, too; of those
    the last quarter has to be higher than the first besides.
    """
    quarter = len(life) // 4
    hours, values = [each / 3600 for each in life.at_seconds], life.values
    first, last = median(values[: max(quarter, 1)]), median(values[-max(quarter, 1) :])
    slope, flat, limit = 0.0, None, LIMITS[figure]
    if quarter >= MOST_GAPS:
        slope = linear_regression(hours[quarter + 1 : -1], _without_spikes(values[quarter:])).slope
        grown = slope * (hours[-1] - hours[quarter])
        flat = slope < limit.per_hour or grown < limit.noise or (limit.pooled and last - first < limit.noise)
    return Row(
        process,
        figure,
        len(life),
        hours[-1] - hours[0],
        first,
        last,
        max(values),
        slope,
        flat,
    )


def _without_spikes(values: Sequence[float]) -> list[float]:
    """One for each value but the first and the last."""
    return [median(three) for three in zip(values, values[1:], values[2:], strict=False)]


def table(found: Sequence[Row]) -> str:
    head = f"{'process':<10} {'figure':<8} {'samples':>7} {'hours':>6} {'first quarter':>13} {'last quarter':>12}"
    lines = [f"{head} {'most':>8} {'per hour':>9}  verdict"]
    for each in found:
        verdict = {True: "flat", False: "NOT FLAT", None: "too short"}[each.flat]
        lines.append(
            f"{each.process:<10} {each.figure:<8} {each.samples:>7} {each.hours:>6.2f} {each.first:>13.1f} "
            f"{each.last:>12.1f} {each.most:>8.1f} {each.per_hour:>+9.2f}  {verdict}"
        )
    return "\n".join(lines)
