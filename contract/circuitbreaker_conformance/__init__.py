"""Conformance to the contract: plays the scenarios of contract/vectors on an implementation and says what differs.

`load()` reads the scenarios, `play(scenario, store)` plays one; `Store` is what an implementation has to offer for it,
and `RedisStore` offers it for a function library in Redis. The command is `circuitbreaker-conformance`. Reading the
scenarios needs the extra `circuitbreakers[conformance]`.
"""

from circuitbreaker_conformance.playing import BASE_MS, Difference, Verdict, play
from circuitbreaker_conformance.redis_store import CLOCK_KEY, SETTABLE_CLOCK, RedisStore
from circuitbreaker_conformance.scenarios import Scenario, ScenarioError, load
from circuitbreaker_conformance.store import Store, UnexpectedReplyError

__all__ = [
    "BASE_MS",
    "CLOCK_KEY",
    "SETTABLE_CLOCK",
    "Difference",
    "RedisStore",
    "Scenario",
    "ScenarioError",
    "Store",
    "UnexpectedReplyError",
    "Verdict",
    "load",
    "play",
]
