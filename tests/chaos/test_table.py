"""The matrix has a word for each pair of target and fault, and the page shows all of them."""

import itertools

from tests.chaos import table
from tests.chaos.matrix import CELLS, FAULTS, LEFT_OUT, SHORT, TARGETS
from tests.chaos.table import FAILS, HOLDS, NONE, PAGE

PAIRS = set(itertools.product(TARGETS, FAULTS))


def test_every_pair_is_played_or_left_out_for_a_reason() -> None:
    played = [(each.target, each.fault) for each in CELLS]
    assert len(set(played)) == len(played)
    assert set(played) | set(LEFT_OUT) == PAIRS
    assert not set(played) & set(LEFT_OUT)
    assert set(SHORT) <= set(played)
    assert all(LEFT_OUT.values())


def test_the_page_shows_every_cell() -> None:
    """As the last whole run found it; a cell fails there when the matrix says why, and only then."""
    page = PAGE.read_text(encoding="utf-8")
    results = table.read(page)
    assert results == {(each.target, each.fault): FAILS if each.fails else HOLDS for each in CELLS}
    assert page == table.put_into(page, {}), "written by hand: run make chaos"
    for (target, fault), why in LEFT_OUT.items():
        assert f"- {target}, {fault}: {why}." in page


def test_a_run_of_some_cells_keeps_the_others() -> None:
    page = f"before\n{table.BEGIN}\n{table.END}\nafter"
    first, second = [(each.target, each.fault) for each in CELLS[:2]]
    page = table.put_into(table.put_into(page, {first: HOLDS}), {second: FAILS})
    assert table.read(page) == {first: HOLDS, second: FAILS}
    assert page.startswith("before\n")
    assert page.endswith("\nafter")
    assert page.count(f"| {NONE} ") == len(LEFT_OUT)
