"""The page and the program say the same."""

import re
from pathlib import Path

from circuitbreaker_cli.kubectl import MANAGER
from circuitbreaker_cli.main import app
from circuitbreaker_cli.words import Exit

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def test_every_command_is_on_the_page() -> None:
    section = PAGE.partition("## Commands")[2].partition("### list")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE) == [each.name for each in app.registered_commands]


def test_every_exit_code_is_on_the_page() -> None:
    section = PAGE.partition("## Exit codes")[2].partition("\n## ")[0]
    codes = [int(code) for code in re.findall(r"^\| ([0-9]+) \|", section, re.MULTILINE)]
    assert codes == [each.value for each in Exit]


def test_the_field_manager_is_on_the_page() -> None:
    assert f"`{MANAGER}`" in PAGE
