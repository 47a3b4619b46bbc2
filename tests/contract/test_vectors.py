"""Every implementation of the contract tells the story that contract/vectors tells."""

import pytest

from tests.contract.scenarios import Player, Scenario, load
from tests.contract.stores import Store

SCENARIOS = list(load())


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: f"{scenario.group}: {scenario.name}")
def test_scenario(scenario: Scenario, store: Store) -> None:
    """After each step reply, messages, shared names and the whole state are as written."""
    for expected, seen in Player(scenario, store).play():
        assert expected == seen


def test_scenarios_have_names_of_their_own() -> None:
    """A name says which scenario failed."""
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS) >= 30
