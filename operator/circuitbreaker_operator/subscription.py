"""Listens on the shared channel. What arrives is a hint: it names a breaker to look at, and nothing else is believed.

redis-py does not notice a connection that is half open, so we send a PING of our own and want its PONG. Each
confirmation of the subscription means that messages may have been lost before it: everything is compared again. In a
Cluster any primary will do, since each of them hears what is published on every other.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import State
from circuitbreaker_operator.connections import heed_cancellation, translated
from circuitbreaker_operator.metrics import Metrics
from circuitbreaker_operator.redis_settings import Address
from circuitbreaker_operator.servers import open_servers
from circuitbreaker_operator.settings import Settings
from circuitbreaker_operator.store import Store

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 5.0
LONGEST_WAIT_MS: Final = 86_400_000  # no opening lasts longer


class Hint(NamedTuple):
    """The breaker that a message names, the state it claims, and in how many seconds it says that Open is over."""

    key: BreakerKey
    claimed: State | None
    due_seconds: float | None


def parse_hint(data: object) -> Hint | None:
    """What a message says; None for what is no message of the contract."""
    if not isinstance(data, bytes | str) or len(data) > 4_096:
        return None
    try:
        message = json.loads(data)
        key = BreakerKey.parse(message["service"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    claimed = next((state for state in State if state == message.get("state")), None)
    wait_ms = message.get("retryAfterMs")
    is_open = claimed is State.OPEN and type(wait_ms) is int and 0 <= wait_ms <= LONGEST_WAIT_MS
    return Hint(key, claimed, wait_ms / 1000 if is_open else None)


class Subscription:
    """Calls `heard` for each hint and `gap` whenever messages may have been lost."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        metrics: Metrics,
        *,
        heard: Callable[[Hint], bool],
        gap: Callable[[], None],
    ) -> None:
        self._channel = settings.keys.updates
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._heard = heard
        self._gap = gap
        self.alive = False

    async def run(self) -> None:
        """Listens until cancelled, again and again."""
        pause = 0.1
        while True:
            await self._store.up.wait()
            try:
                await self._listen()
            except (RedisError, OSError, TimeoutError) as error:
                logger.debug("subscription ended: %s", translated(error))
            finally:
                pause = 0.1 if self.alive else min(pause * 2, 2.0)
                self.alive = False
            await asyncio.sleep(pause)

    async def _listen(self) -> None:
        servers = open_servers(self._settings, connections=2, retries=0)
        try:
            address = secrets.choice(sorted(await servers.locate()))
            pubsub = servers.client(address).pubsub()
            try:
                await pubsub.subscribe(self._channel)
                await self._receive(pubsub, address)
            finally:
                with suppress(RedisError, OSError):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]
        finally:
            await servers.aclose()

    async def _receive(self, pubsub: PubSub, address: Address) -> None:
        """Returns never; raises TimeoutError when neither a message nor a PONG came in time, or nobody speaks there."""
        loop = asyncio.get_running_loop()
        patience = self._settings.redis_timeout_ms / 1000
        pinged_at: float | None = None
        while True:
            if self._store.up.is_set() and address not in self._store.primaries:
                raise TimeoutError(f"{address} is no primary any more")
            wait = HEARTBEAT_SECONDS if pinged_at is None else pinged_at + patience - loop.time()
            if wait <= 0:
                raise TimeoutError("no PONG")
            message = await pubsub.get_message(ignore_subscribe_messages=False, timeout=wait)
            heed_cancellation()
            if message is None:
                if pinged_at is None:
                    await pubsub.ping()
                    pinged_at = loop.time()
                continue
            pinged_at = None
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "subscribe":
                self.alive = True
                self._gap()
            case "message":
                hint = parse_hint(message["data"])
                if hint is None:
                    self._metrics.messages.labels("malformed").inc()
                else:
                    known = self._heard(hint)
                    self._metrics.messages.labels("used" if known else "unknown").inc()
