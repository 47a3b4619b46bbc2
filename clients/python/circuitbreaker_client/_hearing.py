"""Listening for hints. What arrives names a breaker to read again; nothing else in it is believed.

The subscription counts as alive only while our own PINGs are answered. Each confirmation of it is a gap: messages may
have been lost before, so everything is read again. An application that is confined to its namespace may hear only
`circuit_breaker_updates:<namespace>`; both channels are asked for, one by one.
"""

import json
import logging
from time import perf_counter
from typing import Final

from circuitbreaker_client._link import Listener
from circuitbreaker_client._wire import Connect
from circuitbreaker_client.errors import StoreUnavailableError
from circuitbreaker_client.settings import Settings
from circuitbreaker_contract.state import Order

logger = logging.getLogger("circuitbreaker_client")

LONGEST_HINT: Final = 4_096
PAUSE_SECONDS: Final = 0.2
_REST: Final = 9.0  # so much longer than a failed attempt takes, which keeps the thread from everything else
_LONGEST_REST_SECONDS: Final = 30.0  # however slowly names are looked up; what nobody tells is read again meanwhile

Hint = tuple[str, Order | None]  # the breaker's name, and the order it is said to have


def parse_hint(data: bytes) -> Hint | None:
    """The breaker and the order that a message claims (None: it was deleted); None for what is no message of ours."""
    if len(data) > LONGEST_HINT:
        return None
    try:
        said = json.loads(data)
        name = said["service"]
        if not isinstance(name, str):
            return None
        if said["state"] == "":
            return name, None
        return name, Order(int(said["incarnation"]), int(said["generation"]), int(said["revision"]))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


class Hearing:
    """Belongs to the background thread. `listener` is what to wait on; None while there is none."""

    def __init__(self, settings: Settings, connect: Connect) -> None:
        self.listener: Listener | None = None
        self._updates = settings.keys.updates
        self._ping_seconds = settings.max_staleness_seconds / 4
        self._connect = connect
        self._patience_seconds = settings.patience_seconds
        self._asked: set[str] = set()  # channels
        self._ping_at = 0.0
        self._try_at = 0.0
        self._told: set[str] = set()

    def hear(self) -> tuple[bool, list[Hint]]:
        """Whether there was a gap, and what was said."""
        if self.listener is None:
            return False, []
        try:
            heard = self.listener.hear()
        except StoreUnavailableError as error:
            self._lost(str(error))
            return False, []
        for refusal in self.listener.refused:
            if refusal not in self._told:
                self._told.add(refusal)
                logger.info("a channel may not be heard: %s", refusal)
        self.listener.refused.clear()
        said = dict.fromkeys(data for kind, data in heard if kind == "message")  # the same comes on both channels
        return any(kind == "subscribe" for kind, _ in heard), [hint for data in said if (hint := parse_hint(data))]

    def keep(self, namespaces: set[str], now: float) -> None:
        """Connects, subscribes to what is new, and asks whether the other end is still there. `namespaces`: in use."""
        try:
            if self.listener is None:
                if now < self._try_at or not namespaces:
                    return
                began = perf_counter()
                try:
                    self.listener = Listener(self._connect, self._patience_seconds)
                finally:
                    ended = perf_counter()
                    rest_seconds = 0.0 if self.listener is not None else _REST * (ended - began)
                    self._try_at = ended + min(max(PAUSE_SECONDS, rest_seconds), _LONGEST_REST_SECONDS)
                self._asked = set()
                self._ping_at = now + self._ping_seconds
            for channel in {self._updates, *(f"{self._updates}:{each}" for each in namespaces)} - self._asked:
                self._asked.add(channel)
                self.listener.subscribe(channel)
            if now >= self._ping_at:
                if self.listener.awaits_pong:
                    self._lost("no answer to a PING")
                    return
                self._ping_at = now + self._ping_seconds
                self.listener.ping()
        except StoreUnavailableError as error:
            self._lost(str(error))

    def close(self) -> None:
        if self.listener is not None:
            self.listener.close()
            self.listener = None

    def _lost(self, why: str) -> None:
        logger.info("the subscription was lost: %s", why)
        self.close()
