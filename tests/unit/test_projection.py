"""What the twin says to whom; the Lua is held to the same by tests against a real Redis."""

import json

import pytest
from tests.unit.breakers import POLICY

from circuitbreaker_contract import protocol
from circuitbreaker_contract.keys import BreakerKey, Keys
from circuitbreaker_contract.memory import Memory
from circuitbreaker_contract.state import Projection

KEYS = Keys("team:")
KEY = KEYS.breaker(BreakerKey("shop", "pay"))
BOTH = ["team:circuit_breaker_updates", "team:circuit_breaker_updates:shop"]


@pytest.mark.parametrize(
    ("projection", "channels", "shown"),
    [
        (Projection.NOTHING, [], {}),
        (Projection.SHARED, BOTH[:1], {"shop/pay": "Closed"}),
        (Projection.MESSAGES, BOTH, {}),
    ],
)
def test_who_is_told(projection: Projection, channels: list[str], shown: dict[str, str]) -> None:
    """Making and deleting a breaker: the same text on each channel."""
    memory = Memory(lambda: 1_000)
    call = protocol.configure(KEY, owner="o", uid="u", generation=1, policy=POLICY, project=projection)
    memory.execute(*call.command())
    assert memory.states.get(KEYS.states, {}) == shown
    assert protocol.observe(KEY).read(memory.execute(*protocol.observe(KEY).command())).projection is projection
    memory.execute(*protocol.delete(KEY, owner="o", uid="u").command())
    assert [channel for channel, _ in memory.published] == channels * 2
    assert [json.loads(text)["state"] for _, text in memory.published] == ["Closed"] * len(channels) + [""] * len(
        channels
    )
    assert memory.states.get(KEYS.states, {}) == {}
