"""The fault matrix: `make chaos` runs all of it and writes the table in docs/reliability.md, other runs a few cells."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from circuitbreaker_local.control_plane import ControlPlane
from tests.chaos import table
from tests.chaos.matrix import CELLS, FULL, SHORT, Cell
from tests.chaos.play import play
from tests.chaos.stage import Stage, new_redis

RESULTS: dict[tuple[str, str], str] = {}


@pytest.fixture(scope="module", autouse=True)
def _page() -> Iterator[None]:
    """A whole run, or a part of one, writes down what it has found, also when it was interrupted."""
    yield
    if FULL:
        page = table.PAGE.read_text(encoding="utf-8")
        table.PAGE.write_text(table.put_into(page, RESULTS), encoding="utf-8")


def _case(cell: Cell) -> object:
    marks = [pytest.mark.xfail(reason=cell.fails, strict=True)] if cell.fails else []
    return pytest.param(cell, id=cell.name, marks=marks)


@pytest.mark.parametrize("cell", [_case(each) for each in CELLS if FULL or (each.target, each.fault) in SHORT])
def test_cell(cell: Cell, plane: ControlPlane, redis_server_binary: Path, tmp_path: Path) -> None:
    RESULTS[cell.target, cell.fault] = table.FAILS
    with (
        new_redis(redis_server_binary) as server,
        cell.roads(plane, server) as ways,
        Stage(plane, server, tmp_path, ways) as stage,
    ):
        play(stage, cell)
    RESULTS[cell.target, cell.fault] = table.HOLDS
