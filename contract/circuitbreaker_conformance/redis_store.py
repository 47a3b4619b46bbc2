"""A function library in Redis, with a clock that is set. The Redis has to be one that nobody else uses."""

import json
from typing import Any, cast

import redis

from circuitbreaker_conformance.store import UnexpectedReplyError
from circuitbreaker_contract import library
from circuitbreaker_contract.errors import ContractError
from circuitbreaker_contract.keys import BreakerKey, Keys

CLOCK_KEY = "test:now_ms"  # where a library under test reads the time: a whole number, ms since the Unix epoch
# Joined in place of functions/clock.lua, for tests only: the shipped library has no such door.
SETTABLE_CLOCK = f"local function clock_ms() return tonumber(redis.call('GET', '{CLOCK_KEY}')) end"


class RedisStore:
    """`client` has decode_responses. `text`: the library to load, which reads CLOCK_KEY; ours when left out.

    Loads the library over one of the same name. Raises redis.ResponseError when Redis does not take it.
    """

    def __init__(self, client: redis.Redis, text: str | None = None) -> None:
        self.client = cast("Any", client)  # redis-py leaves half of what is used here without types
        self.keys = Keys()
        text = library.joined({"clock": SETTABLE_CLOCK}) if text is None else text
        self.library = str(self.client.function_load(text, replace=True))  # its name
        self._subscription = self.client.pubsub()
        self._subscription.subscribe(self.keys.updates)
        self.messages()

    def execute(self, *command: str | int) -> Any:
        try:
            return self.client.execute_command(*command)
        except redis.ResponseError as error:
            known = ContractError.from_reply(str(error))
            raise known or UnexpectedReplyError(str(error)) from error

    def set_clock(self, now_ms: int) -> None:
        self.client.set(CLOCK_KEY, now_ms)

    def states(self, keys: Keys) -> dict[str, str]:
        return dict(self.client.hgetall(keys.states))

    def messages(self) -> list[dict[str, Any]]:
        """What was published since the last call: all that comes before a marker of our own."""
        sent: list[dict[str, Any]] = []
        self.client.publish(self.keys.updates, "null")
        while True:
            message = self._subscription.get_message(ignore_subscribe_messages=True, timeout=5)
            if message is not None:
                if message["data"] == "null":
                    return sent
                sent.append(_decoded(message["data"]))

    def clear(self, breaker: BreakerKey) -> None:
        """Deletes that breaker's keys, also such as another library derives from its name, and the shared ones."""
        mine = list(self.client.scan_iter(match=f"{self.keys.breaker(breaker)}*", count=1_000))
        self.client.delete(self.keys.states, CLOCK_KEY, *mine)

    def close(self) -> None:
        self._subscription.close()


def _decoded(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except ValueError:
        message = None
    return message if isinstance(message, dict) else {"reason": f"no message of the contract: {text}"}
