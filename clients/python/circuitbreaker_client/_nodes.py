"""Which server is asked about which breaker. A plain Redis is one; the nodes of a Redis Cluster tell of each other.

Nobody is asked for the map of the Cluster: a node that does not have a breaker says who has it, and that is kept by
slot until somebody says otherwise, or the node falls silent. A login needs no further right for it, and the first
address may be that of any node. While one node is silent the breakers of the others are served.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import choice
from time import perf_counter
from typing import Any, Final, NamedTuple, TypeVar

from redis.crc import key_slot

from circuitbreaker_client._link import Link, RedirectedError, SlotMovingError, SlotUnavailableError
from circuitbreaker_client._redirections import Address, Redirection
from circuitbreaker_client._wire import Reach
from circuitbreaker_client.errors import StoreUnavailableError
from circuitbreaker_client.settings import Settings
from circuitbreaker_contract.protocol import Call

logger = logging.getLogger("circuitbreaker_client")

REDIRECTIONS: Final = 5  # of one call; more than that is a circle
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 1.0
WAITED_SHARE: Final = 0.1  # of the thread's time at most, for a silent node: the others' breakers wait meanwhile
_FORGOTTEN_SECONDS: Final = 60.0
_REMEMBERED: Final = 32  # addresses that were told of; a Cluster whose nodes get new ones leaves old ones behind

T = TypeVar("T")
Node = Address | None  # None: the address of the settings, which may be a name that leads to several


class _Errand(NamedTuple):
    number: int
    call: Call[Any]
    node: Node
    asking: bool = False


class _Silence(NamedTuple):
    since: float
    try_at: float
    pause_seconds: float
    reason: str  # no error: it has the frames that it came through, and they have the silence before


class Nodes:
    """Not thread-safe. `late` as for a Link."""

    def __init__(self, reach: Reach, settings: Settings, late: Callable[[], None]) -> None:
        self._reach = reach
        self._settings = settings
        self._late = late
        self._patience_seconds = settings.patience_seconds
        self._links: dict[Node, Link] = {}
        self._of_slot: dict[int, Address] = {}
        self._first: Node = None  # who is asked for a slot that nobody has told of
        self._told: deque[Address] = deque(maxlen=_REMEMBERED)  # the latest last; for when nobody else is left
        self._silent: dict[Node, _Silence] = {}
        self._heard: Node = None

    def exchange(self, calls: Sequence[Call[Any]]) -> Iterator[tuple[int, Any]]:
        """For each call its number and value, or the CircuitBreakerError that it was answered with, as they come.

        A StoreUnavailableError among them means that the node is silent, or does not have that breaker at the moment.
        Raises StoreUnavailableError when nobody else is to be had either.
        """
        errands = [_Errand(number, call, self._node_of(call)) for number, call in enumerate(calls)]
        for _ in range(1 + REDIRECTIONS):
            elsewhere: list[_Errand] = []
            for node, asking, group in self._by_node(errands):
                for errand, answer in zip(group, self._asked(node, asking, group), strict=True):
                    if isinstance(answer, RedirectedError):
                        elsewhere.append(self._redirected(errand, answer.to))
                        continue
                    if isinstance(answer, SlotUnavailableError) and not isinstance(answer, SlotMovingError):
                        self._unlearn(errand)
                    yield errand.number, answer
            errands = elsewhere
        for errand in errands:
            yield (
                errand.number,
                SlotUnavailableError("its nodes do not agree on who has it, or refuse ASKING to this login"),
            )

    def load_library(self, calls: Iterable[Call[Any]]) -> None:
        """On every node that is asked one of `calls`. Raises StoreUnavailableError and what the contract raises."""
        for node in {self._node_of(call) for call in calls}:
            self._tried(node, self._link(node).load_library)

    def anybody(self, seconds: float) -> Any:
        """A connection, unconnected, to hear messages by: all nodes pass them on. Each time to another one."""
        known = self._in_use()
        node = known[(known.index(self._heard) + 1) % len(known)] if self._heard in known else self._first
        self._heard = node
        return self._reach(node)(seconds)

    def hurry(self) -> None:
        """New connections, before the end: they are given up after one timeout."""
        self._patience_seconds = self._settings.redis_timeout_seconds
        for link in self._links.values():
            link.patience_seconds = self._patience_seconds

    def close(self) -> None:
        for link in self._links.values():
            link.close()

    # --- who has it --------------------------------------------------------------------------------------------------

    def _node_of(self, call: Call[Any]) -> Node:
        if not self._of_slot or not call.keys:
            return self._first
        return self._of_slot.get(key_slot(call.keys[0].encode()), self._first)

    def _by_node(self, errands: Iterable[_Errand]) -> Iterator[tuple[Node, bool, list[_Errand]]]:
        """In their order; those of a node that was silent come last, so that others need not wait for it."""
        groups: dict[tuple[Node, bool], list[_Errand]] = {}
        for errand in errands:
            groups.setdefault((errand.node, errand.asking), []).append(errand)
        for node, asking in sorted(groups, key=lambda each: each[0] in self._silent):
            yield node, asking, groups[node, asking]

    def _redirected(self, errand: _Errand, to: Redirection) -> _Errand:
        address = to.address
        if not address.host:
            address = Address(errand.node.host if errand.node else self._host_of_settings(), address.port)
        if not to.asking:
            self._of_slot[to.slot] = address
        if address in self._told:
            self._told.remove(address)
        self._told.append(address)
        return errand._replace(node=address, asking=to.asking)

    def _host_of_settings(self) -> str:
        return str(getattr(self._reach(None)(self._patience_seconds), "host", "localhost"))

    def _unlearn(self, errand: _Errand) -> None:
        """Nobody has it as far as that node knows; it may have left the Cluster, so another one is asked next time."""
        if self._of_slot.pop(key_slot(errand.call.keys[0].encode()), None) == errand.node:
            self._forget(errand.node)  # nor is it to be asked for others
        if errand.node == self._first:
            self._ask_another_first()

    def _ask_another_first(self) -> None:
        others = [node for node in self._in_use() if node != self._first and node not in self._silent]
        if others:
            self._first = choice(others)  # noqa: S311
        elif self._first is not None:
            self._first = None
        elif self._told:  # each in turn, and the address of the settings in between
            self._told.rotate()
            self._first = self._told[0]
        else:
            self._link(None).close()  # a name may lead elsewhere now

    def _in_use(self) -> list[Node]:
        return [*dict.fromkeys([None, self._first, *self._of_slot.values()])]

    def _known(self) -> list[Node]:
        return [*dict.fromkeys([*self._in_use(), *self._told])]

    # --- silence -----------------------------------------------------------------------------------------------------

    def _asked(self, node: Node, asking: bool, group: Sequence[_Errand]) -> list[Any]:
        silence = self._silent.get(node)
        if silence is not None and perf_counter() < silence.try_at and self._has_others():
            self._forget(node)
            return [StoreUnavailableError(silence.reason)] * len(group)
        answers = self._tried(node, lambda: self._link(node).exchange([each.call for each in group], asking=asking))
        return [answers] * len(group) if isinstance(answers, StoreUnavailableError) else answers

    def _tried(self, node: Node, action: Callable[[], T]) -> T | StoreUnavailableError:
        """Raises StoreUnavailableError when nobody else is left."""
        began_at = perf_counter()
        try:
            result = action()
        except StoreUnavailableError as error:
            self._fell_silent(node, began_at, error)
            if not self._has_others():
                raise
            return error
        self._spoke(node)
        return result

    def _fell_silent(self, node: Node, began_at: float, error: StoreUnavailableError) -> None:
        now = perf_counter()
        before = self._silent.get(node)
        pause_seconds = min(2 * before.pause_seconds, LONGEST_PAUSE_SECONDS) if before else FIRST_PAUSE_SECONDS
        # At once after the first time: a server that hiccups is not to be without its breakers for long.
        try_at = now + (max(pause_seconds, (now - began_at) / WAITED_SHARE) if before else pause_seconds)
        self._silent = {
            each: it for each, it in self._silent.items() if now < it.try_at + _FORGOTTEN_SECONDS or each in self._told
        }
        self._silent[node] = _Silence(before.since if before else now, try_at, pause_seconds, str(error))
        self._forget(node)
        if node == self._first:
            self._ask_another_first()
        if before is None and self._has_others():
            logger.warning("Redis at %s is silent, its breakers go on with what they know: %s", _named(node), error)

    def _spoke(self, node: Node) -> None:
        silence = self._silent.pop(node, None)
        if silence is not None and self._of_slot:
            logger.warning("Redis at %s answers again after %.1f s", _named(node), perf_counter() - silence.since)

    def _forget(self, node: Node) -> None:
        """Another one may have taken over what it had."""
        self._of_slot = {slot: each for slot, each in self._of_slot.items() if each != node}

    def _has_others(self) -> bool:
        return any(node not in self._silent for node in self._known())

    def _link(self, node: Node) -> Link:
        link = self._links.get(node)
        if link is None:
            for gone in [each for each in self._links if each not in {*self._in_use(), node}]:
                self._links.pop(gone).close()
            link = self._links[node] = Link(self._reach(node), self._settings, self._late)
            link.patience_seconds = self._patience_seconds
        return link


def _named(node: Node) -> str:
    return str(node or "the address of the settings")
