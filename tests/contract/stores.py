"""Two executors of the contract with a clock that tests set: Redis with the Lua, and the twin in memory."""

import json
from dataclasses import dataclass, field
from typing import Any, Protocol

import redis

from circuitbreaker_contract import library
from circuitbreaker_contract.errors import ContractError
from circuitbreaker_contract.keys import Keys
from circuitbreaker_contract.memory import Memory

CLOCK_KEY = "test:now_ms"
# Joined in place of functions/clock.lua, in tests only: the shipped library has no such door.
SETTABLE_CLOCK = f"local function clock_ms() return tonumber(redis.call('GET', '{CLOCK_KEY}')) end"


class Store(Protocol):
    """Runs commands of the contract at a time that is set."""

    def execute(self, *command: str | int) -> Any: ...
    def set_clock(self, now_ms: int) -> None: ...
    def states(self, keys: Keys) -> dict[str, str]: ...
    def messages(self) -> list[dict[str, Any]]: ...


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
        """What was published since the last call."""
        sent = [json.loads(text) for _, text in self.memory.published]
        self.memory.published.clear()
        return sent


class LuaStore:
    """`client` has decode_responses; the library with the settable clock is loaded over whatever was there."""

    def __init__(self, client: "redis.Redis[str]", channel: str = Keys().updates) -> None:
        self.client, self.channel = client, channel
        self.client.function_load(library.joined({"clock": SETTABLE_CLOCK}), replace=True)
        self.subscription = client.pubsub()
        self.subscription.subscribe(channel)
        self.messages()

    def execute(self, *command: str | int) -> Any:
        try:
            return self.client.execute_command(*command)
        except redis.ResponseError as error:
            raise ContractError.from_reply(str(error)) or error from error

    def set_clock(self, now_ms: int) -> None:
        self.client.set(CLOCK_KEY, now_ms)

    def states(self, keys: Keys) -> dict[str, str]:
        return self.client.hgetall(keys.states)

    def messages(self) -> list[dict[str, Any]]:
        """What was published since the last call: all that comes before a marker of our own."""
        sent: list[dict[str, Any]] = []
        self.client.publish(self.channel, "null")
        while True:
            message = self.subscription.get_message(ignore_subscribe_messages=True, timeout=5)
            if message is not None:
                if message["data"] == "null":
                    return sent
                sent.append(json.loads(message["data"]))

    def close(self) -> None:
        self.subscription.close()
