"""docs/runbooks: one page for each alert, and what it tells people to type exists."""

import re
from pathlib import Path

import pytest
import yaml
from tests.unit.series import shown_series

from circuitbreaker_cli.main import made
from circuitbreaker_operator.settings import unknown_variables

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "manifests" / "components" / "monitoring" / "alerts.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"
PAGES = sorted(RUNBOOKS.iterdir())
OF_THE_CLIENT = {"circuitbreaker_client_degraded"}


def runbooks() -> dict[str, str]:
    """Alert -> what its annotation says."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["spec"]["groups"]
    return {rule["alert"]: rule["annotations"].get("runbook") for group in groups for rule in group["rules"]}


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    found = runbooks()
    assert len(found) == 9
    assert found == {alert: f"docs/runbooks/{alert}.md" for alert in found}
    assert {ROOT / path for path in found.values()} == set(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_runbook_answers_the_same_questions(page: Path) -> None:
    """Who is woken at night finds the same things in the same places."""
    lines = page.read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# {page.stem}"
    assert [line for line in lines if line.startswith("## ")] == ["## Look", "## Do"]
    assert any(line.startswith("**What users feel**") for line in lines)
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_runbook_names_is_there(page: Path) -> None:
    """Series, settings, and commands of the plugin with their options."""
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"\bcircuitbreaker_\w+", text)) - OF_THE_CLIENT
    assert names <= set(shown_series())
    assert unknown_variables(dict.fromkeys(re.findall(r"\bCB_[A-Z_]*[A-Z]", text), "")) == []
    for command, rest in re.findall(r"kubectl breaker ([a-z-]+)([^`#\n]*)", text):
        known = {option for parameter in made(command).params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--[a-z-]+", rest)) <= known, command
