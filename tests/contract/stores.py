"""Two executors of the contract with a clock that tests set: Redis with the Lua, and the twin in memory."""

import json
from dataclasses import dataclass, field
from typing import Any

from circuitbreaker_conformance import CLOCK_KEY, SETTABLE_CLOCK, RedisStore, Store
from circuitbreaker_contract.keys import Keys
from circuitbreaker_contract.memory import Memory

__all__ = ["CLOCK_KEY", "SETTABLE_CLOCK", "LuaStore", "Store", "TwinStore"]

LuaStore = RedisStore


@dataclass
class TwinStore:
    now_ms: int = 0
    memory: Memory = field(init=False)

    def __post_init__(self) -> None:
        self.memory = Memory(lambda: self.now_ms)

    def execute(self, *command: str | int) -> Any:
        return self.memory.execute(*command)

    def set_clock(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def states(self, keys: Keys) -> dict[str, str]:
        return dict(self.memory.states.get(keys.states, {}))

    def messages(self) -> list[dict[str, Any]]:
        """What was published on the shared channel since the last call."""
        sent = [json.loads(text) for channel, text in self.memory.published if channel == Keys().updates]
        self.memory.published.clear()
        return sent
