"""What was measured, and whether it is flat. Values in, values out."""

from collections.abc import Sequence
from dataclasses import dataclass
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
class Limit:
    """What a figure may grow by. `per_hour` of the fitted line; what stays below `noise` in all is no growth."""

    per_hour: float
    noise: float


LIMITS = {
    "rss_mib": Limit(4.0, 3.0),
    "threads": Limit(1.0, 3.0),
    "tasks": Limit(4.0, 8.0),
    "fds": Limit(2.0, 6.0),
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


def rows(samples: Sequence[Sample]) -> list[Row]:
    """A row for each figure, in the order of their first samples."""
    found: dict[tuple[str, str], dict[int, list[Sample]]] = {}
    for each in samples:
        found.setdefault((each.process, each.figure), {}).setdefault(each.life, []).append(each)
    return [_row(max(lives.values(), key=len)) for lives in found.values()]


def _row(life: list[Sample]) -> Row:
    """Flat: the line through the last three quarters rises by less than the limit, or comes to no more than noise.

    The first quarter is left out of the line: caches fill then, and an allocator takes what it will keep.
    """
    quarter = len(life) // 4
    values = [each.value for each in life]
    first, last = life[0], life[-1]
    hours = (last.at_seconds - first.at_seconds) / 3600
    slope, flat, limit = 0.0, None, LIMITS[first.figure]
    if quarter >= MOST_GAPS:
        later = life[quarter:]
        slope = linear_regression([each.at_seconds / 3600 for each in later], [each.value for each in later]).slope
        grown = slope * (later[-1].at_seconds - later[0].at_seconds) / 3600
        flat = slope < limit.per_hour or grown < limit.noise
    return Row(
        first.process,
        first.figure,
        len(life),
        hours,
        median(values[: max(quarter, 1)]),
        median(values[-max(quarter, 1) :]),
        max(values),
        slope,
        flat,
    )


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
