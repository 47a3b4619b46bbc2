"""Every implementation of the contract tells the story that contract/vectors tells."""

from collections import Counter

import pytest

from circuitbreaker_conformance import Scenario, ScenarioError, Store, load, play
from circuitbreaker_conformance.scenarios import vectors

SCENARIOS = load()
GROUPS = {  # the seven that the contract is about, and three besides
    "thresholds",
    "windows and rates",
    "half-open and leases",
    "generations and late outcomes",
    "overrides, Observe and resets",
    "live edits",
    "fleet",
    "clocks that jump",
    "ownership, deletion and restoring",
    "refused arguments",
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_scenario(scenario: Scenario, store: Store) -> None:
    """After each step reply, messages, shared names and the whole state are as written."""
    verdict = play(scenario, store)
    assert verdict.passed, f"\n{verdict}"


def test_scenarios_have_names_of_their_own() -> None:
    """A name says which scenario failed."""
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS) >= 120


def test_every_group_is_there() -> None:
    """And no group is so small that it says nothing."""
    counts = Counter(scenario.group for scenario in SCENARIOS)
    assert set(counts) == GROUPS
    assert min(counts.values()) >= 5


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("format: 2\nscenarios: []", "not of format 1"),
        ("format: 1\ngroup: g\nscenarios: [{name: n, steps: [{report: F1, tick: null}]}]", "more than one action"),
        ("format: 1\ngroup: g\nscenarios: [{name: n, steps: [{raport: F1}]}]", "unknown fields"),
        ("a: [", "while parsing"),
    ],
)
def test_a_file_of_another_form_is_refused(text: str, wrong: str, tmp_path) -> None:
    """A misspelt field would otherwise pass in silence."""
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ScenarioError, match=wrong) as raised:
        load(tmp_path)
    assert "bad.yaml" in str(raised.value)


def test_the_format_is_documented() -> None:
    """Each field of the state that is compared stands in the README of the vectors."""
    from circuitbreaker_conformance.playing import BLANK
    from circuitbreaker_conformance.scenarios import STEP_FIELDS

    text = (vectors() / "README.md").read_text()
    assert [name for name in {*BLANK, *STEP_FIELDS} if f"`{name}" not in text and f" {name}" not in text] == []
