"""The page and the program say the same."""

import re
from pathlib import Path
from typing import Any

import pytest

from circuitbreaker_cli.breakers import listing, ranking, transitions
from circuitbreaker_cli.catalogue import COMMANDS
from circuitbreaker_cli.checks import served, stuck
from circuitbreaker_cli.checks.installation import OF_CLUSTER, OF_REDIS
from circuitbreaker_cli.errors import Exit
from circuitbreaker_cli.main import main
from circuitbreaker_cli.remote.kubectl import MANAGER

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def test_every_command_is_on_the_page() -> None:
    section = PAGE.partition("## Commands")[2].partition("### list")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE) == list(COMMANDS)


def test_every_command_has_a_section() -> None:
    told = " ".join(re.findall(r"^### (.*)$", PAGE, re.MULTILINE))
    without = [each for each in COMMANDS if each not in re.split(r",? ", told)]
    assert without == ["version"]


def test_the_tables_shown_have_the_columns_of_the_code() -> None:
    """And the lines of `watch` its form."""
    shown = [block.splitlines() for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)]
    heads = {lines[0].split()[3]: lines[1].split() for lines in shown}
    for command, made in (
        ("list", listing.table([], 0, namespaces=False, wide=False)),
        ("history", transitions.table([], 0, wide=False)),
        ("top", ranking.table([], 0, namespaces=False)),
    ):
        assert heads[command] == [column.header for column in made.columns]
    (watched,) = [lines[2:] for lines in shown if lines[0].split()[3] == "watch"]
    for line in watched:
        assert re.fullmatch(r"\S+Z  \S+ +. \w+ +-> . \w+ +[A-Z]\w+ +by \S+(  .*)?", line), line


def test_every_exit_code_is_on_the_page() -> None:
    section = PAGE.partition("## Exit codes")[2].partition("\n## ")[0]
    codes = [int(code) for code in re.findall(r"^\| ([0-9]+) \|", section, re.MULTILINE)]
    assert codes == [each.value for each in Exit]


def test_the_field_manager_is_on_the_page() -> None:
    assert f"`{MANAGER}`" in PAGE


def test_the_output_of_simulate_is_what_it_prints(monkeypatch: Any, capsys: Any) -> None:
    """Every line of it; the plot has characters of Unicode."""
    block = PAGE.partition("### simulate")[2].partition("```console\n")[2].partition("```")[0]
    command, _, shown = block.partition("\n")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", command.removeprefix("$ kubectl ").split())
    with pytest.raises(SystemExit):
        main()
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == shown.splitlines()


def test_every_check_of_the_doctor_is_on_the_page() -> None:
    section = PAGE.partition("### doctor")[2].partition("\n## ")[0]
    named = {name for row in re.findall(r"^\| ([A-Za-z ,]+) \|", section, re.MULTILINE) for name in row.split(", ")}
    assert named == {"check", "API server", "Redis", "clocks", served.CHECK, stuck.CHECK, *OF_CLUSTER, *OF_REDIS}
