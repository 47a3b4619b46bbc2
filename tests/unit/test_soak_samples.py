"""What a soak calls flat: a figure that grows is told, one that moves up and down is not."""

import csv
import io

import pytest
from tests.soak.samples import Row, Sample, Samples, table

HOUR = 3600.0
COUNT = 100


def taken(figure: str, values: list[float], *, life: int = 1) -> list[Sample]:
    """Over an hour and a bit, evenly."""
    return [Sample(number * 40.0, "operator", life, figure, value) for number, value in enumerate(values)]


def row_of(figure: str, values: list[float]) -> Row:
    samples = Samples()
    samples.add(taken(figure, values))
    (row,) = samples.rows()
    return row


FIGURES = {
    "grows": ("rss_mib", [100 + number * 0.1 for number in range(COUNT)], False),
    "fills a cache first": ("rss_mib", [min(100 + number * 2, 140) for number in range(COUNT)], True),
    "up and down": ("rss_mib", [100 + 5 * (number % 7) for number in range(COUNT)], True),
    "a descriptor now and then": ("fds", [30 + number // 8 for number in range(COUNT)], False),
    "pools that were small for a while": (
        "fds",
        [25.0 if 22 <= number < 42 else 37.0 for number in range(COUNT)],
        True,
    ),
    "pools that were small, and descriptors that stay": (
        "fds",
        [(25.0 if 22 <= number < 42 else 37.0) + number // 10 for number in range(COUNT)],
        False,
    ),
    "memory that was low for a while": (
        "rss_mib",
        [125.0 if 22 <= number < 42 else 137.0 for number in range(COUNT)],
        False,
    ),
    "spikes late": ("tasks", [1_100.0 if number in {88, 95, COUNT - 1} else 60.0 for number in range(COUNT)], True),
    "spikes on what grows": (
        "tasks",
        [1_100.0 if number in {3, 9} else 60 + number * 0.2 for number in range(COUNT)],
        False,
    ),
    "a step that stays": ("rss_mib", [134.0 if number < 60 else 144.0 for number in range(COUNT)], False),
    "too few to say": ("threads", [3, 4, 5, 6, 7, 8], None),
}


@pytest.mark.parametrize(("figure", "values", "flat"), FIGURES.values(), ids=FIGURES)
def test_flat(figure: str, values: list[float], flat: bool | None) -> None:
    row = row_of(figure, values)
    assert (row.flat, row.samples, row.most) == (flat, len(values), max(values))
    verdict = {True: "flat", False: "NOT FLAT", None: "too short"}[flat]
    assert table([row]).endswith(f"  {verdict}")


def test_the_line_leaves_out_the_first_quarter() -> None:
    """0.1 MiB in 40 s are 9 MiB an hour."""
    row = row_of("rss_mib", [500.0] * (COUNT // 4) + [100 + number * 0.1 for number in range(COUNT * 3 // 4)])
    assert row.per_hour == pytest.approx(9.0)
    assert (row.first, row.last) == (500.0, pytest.approx(100 + 62 * 0.1))
    assert row.hours == pytest.approx(99 * 40 / HOUR)


def test_the_longest_life_counts_and_all_are_kept() -> None:
    samples = Samples()
    short, long = taken("threads", [9.0] * 5), taken("threads", [2.0] * 40, life=2)
    samples.add(short)
    samples.add(long)
    (row,) = samples.rows()
    assert (row.samples, row.most, row.flat) == (40, 2.0, True)
    assert list(samples) == short + long
    written = io.StringIO()
    csv.writer(written).writerows(samples)
    assert len(written.getvalue().splitlines()) == 45
