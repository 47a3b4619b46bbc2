"""The resources as last seen, by key. Written from the watch, from the sweep and from the answers to our own writes.

Those three overtake each other. So a newer version never gives way to an older one, and a uid that was deleted does not
come back. But a restore of etcd does both. So in a listing of the watch versions may start over, and what a GET answers
is believed, whatever its version, if nothing changed here since it was sent.
"""

import random
from collections.abc import Callable, Iterator
from enum import Enum, auto
from itertools import islice

from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_operator.resource import Resource, version_number

_BURIED = 20_000  # uids remembered; a straggler arrives within seconds


class Change(Enum):
    """What putting a resource into the cache changed."""

    NOTHING = auto()
    STATUS = auto()  # only what the operator itself writes, or metadata that is of no interest
    ASKED = auto()  # new, or a person edited it


class Cache:
    """Resources by key."""

    def __init__(self) -> None:
        self._resources: dict[BreakerKey, Resource] = {}
        self._buried: dict[str, None] = {}
        self._gone: dict[BreakerKey, str] = {}
        self.told: Callable[[BreakerKey], None] = lambda _key: None  # of each change

    def __len__(self) -> int:
        return len(self._resources)

    def __iter__(self) -> Iterator[Resource]:
        return iter(list(self._resources.values()))

    def get(self, key: BreakerKey) -> Resource | None:
        return self._resources.get(key)

    def any(self) -> BreakerKey | None:
        """One of them by chance; None when there is none. No list of all is made for it."""
        if not self._resources:
            return None
        place = random.randrange(len(self._resources))  # noqa: S311 # no secret
        return next(islice(self._resources, place, None))

    def put(self, resource: Resource, *, listed: bool = False) -> Change:
        """Keeps the resource unless it is older than what is there, or buried."""
        known = self._resources.get(resource.key)
        if resource.uid in self._buried:
            return Change.NOTHING
        if known is not None:
            older = version_number(resource.resource_version) < version_number(known.resource_version)
            if older and not (listed and resource.uid == known.uid):
                return Change.NOTHING
        return self._keep(resource, known)

    def put_answer(self, resource: Resource, *, before: Resource | None) -> Change:
        """Keeps what a GET answered; `before` is what was here when it was sent."""
        if self._resources.get(resource.key) is not before:
            return self.put(resource)
        self._buried.pop(resource.uid, None)
        return self._keep(resource, before)

    def _keep(self, resource: Resource, known: Resource | None) -> Change:
        if resource == known:
            return Change.NOTHING
        self._resources[resource.key] = resource
        self._gone.pop(resource.key, None)
        self.told(resource.key)
        if known is not None and resource.asks_the_same_as(known):
            return Change.STATUS
        return Change.ASKED

    def bury(self, key: BreakerKey, uid: str) -> bool:
        """Forgets a deleted resource; False when the key already belongs to another one."""
        self._buried[uid] = None
        if len(self._buried) > _BURIED:
            del self._buried[next(iter(self._buried))]
        known = self._resources.get(key)
        if known is not None and known.uid != uid:
            return False
        self._resources.pop(key, None)
        self._gone[key] = uid
        self.told(key)
        return True

    def is_buried(self, uid: str) -> bool:
        return uid in self._buried

    def gone(self, key: BreakerKey) -> str | None:
        """The uid of a deleted resource whose breaker has still to be removed."""
        return self._gone.get(key)

    def removed(self, key: BreakerKey, uid: str) -> None:
        """The breaker of a deleted resource has been removed."""
        if self._gone.get(key) == uid:
            del self._gone[key]
