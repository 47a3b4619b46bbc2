"""Compares all keys in Redis with all resources in the API server, and puts right what events did not bring.

Keys are read first and resources after, so a resource that is made meanwhile is never taken for missing. Nothing is
removed because of a list alone: a GET has to answer that the resource is gone. Only keys of our owner, in namespaces
that we watch, are ever removed, and never what a client defined by itself (owner and uid `env`).
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import ContractError
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import Snapshot
from circuitbreaker_operator.cache import Cache, Change
from circuitbreaker_operator.cluster import Cluster, Listed
from circuitbreaker_operator.errors import (
    ClusterRefusedError,
    ClusterUnavailableError,
    SlotMovingError,
    StoreRefusedError,
    StoreUnavailableError,
)
from circuitbreaker_operator.logs import Outage
from circuitbreaker_operator.metrics import Metrics
from circuitbreaker_operator.plan import ENVIRONMENT_OWNER
from circuitbreaker_operator.resource import version_number
from circuitbreaker_operator.settings import Settings
from circuitbreaker_operator.shared_states import SharedStates
from circuitbreaker_operator.store import Store

logger = logging.getLogger(__name__)

GRACE_SECONDS: Final = 5.0  # how long the watch may bring nothing while it is behind a list
_RETRY_SECONDS: Final = 2.0
MISSING_KIND: Final = (
    "the CustomResourceDefinition circuitbreakers.circuitbreaker.dev is missing: "
    "kubectl apply -f crds/circuitbreakers.yaml"
)


class Sweep:
    """Runs at intervals, and soon after `ask`. `behind` hears how much the watch did not bring."""

    def __init__(
        self,
        settings: Settings,
        *,
        owner: str,
        cache: Cache,
        store: Store,
        cluster: Cluster,
        metrics: Metrics,
        states: SharedStates,
        reconcile: Callable[[BreakerKey], None],
        behind: Callable[[int], None],
    ) -> None:
        self._settings = settings
        self._owner = owner
        self._cache = cache
        self._store = store
        self._cluster = cluster
        self._metrics = metrics
        self._states = states
        self._reconcile = reconcile
        self._behind = behind
        self._asked = asyncio.Event()
        self._outage = Outage(logger, "sweep")
        self._states_outage = Outage(logger, f"the shared hash at {settings.keys.states}")
        self.allowed = asyncio.Event()  # set once there is a watch to compare with
        self.done_once = False
        self.completed: list[Callable[[], None]] = []  # told after each whole comparison
        self.missing = False  # the resource kind: Kopf says nothing when it is deleted under a watch

    def ask(self) -> None:
        """Sweep now: messages or events may have been lost."""
        self._asked.set()

    async def run(self) -> None:
        """Sweeps until cancelled."""
        interval = self._settings.sweep_interval_ms / 1000
        while True:
            await self._store.up.wait()
            await self.allowed.wait()
            self._asked.clear()
            pause = interval
            try:
                await self.once()
            except (ClusterUnavailableError, StoreUnavailableError, SlotMovingError) as error:
                logger.debug("sweep not finished: %s", error)  # said by cluster.py and store.py
                pause = max(_RETRY_SECONDS, getattr(error, "retry_after_seconds", 0.0))
            except (ClusterRefusedError, StoreRefusedError) as error:
                self.missing = isinstance(error, ClusterRefusedError) and error.status == 404
                remedy = "keys and resources are not compared until that is put right"
                self._outage.failed(f"{MISSING_KIND} ({error})" if self.missing else error, remedy=remedy)
                pause = _RETRY_SECONDS
            else:
                self.missing = False
                self._outage.recovered()
                self._metrics.sweeps.inc()
                self.done_once = True
                for tell in self.completed:
                    tell()
            try:
                async with asyncio.timeout(pause):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def once(self) -> None:
        """One sweep. Raises what kept it from being complete."""
        keys = {key async for key in self._store.breakers()}
        listed = await self._cluster.list_all(self._settings.namespaces)
        await self._catch_up(listed)
        await self._look_at_other_uids(listed)
        for key in listed.keys() - keys:
            self._reconcile(key)  # not in Redis: emptied, or not reached yet
        for resource in self._cache:
            if resource.key not in listed:
                await self._missed_deletion(resource.key, resource.uid)
        await self._remove_orphans(keys - listed.keys())
        await self._tidy_states(keys)

    async def _catch_up(self, listed: dict[BreakerKey, Listed]) -> None:
        """Waits for the watch to bring what the list shows; fetches what it does not bring."""
        behind = self._late(listed)
        patience = GRACE_SECONDS
        while behind and patience > 0:
            await asyncio.sleep(0.25)
            left = self._late(behind)
            patience = GRACE_SECONDS if len(left) < len(behind) else patience - 0.25
            behind = left
        self._behind(len(behind))
        for key in behind:
            resource = await self._cluster.get(key)
            if resource is not None:
                self._put_right(key, self._cache.put(resource))

    async def _look_at_other_uids(self, listed: dict[BreakerKey, Listed]) -> None:
        """What the list has under another uid: it was made or deleted since, or a restore of etcd brought it back."""
        for key, each in listed.items():
            known = self._cache.get(key)
            if known is None or known.uid != each.uid:
                found = await self._cluster.get(key)
                if found is not None:
                    self._put_right(key, self._cache.put_answer(found, before=known))

    def _put_right(self, key: BreakerKey, change: Change) -> None:
        if change is Change.ASKED:
            self._metrics.swept.labels("missed_change").inc()
            self._reconcile(key)

    def _late(self, listed: dict[BreakerKey, Listed]) -> dict[BreakerKey, Listed]:
        return {key: each for key, each in listed.items() if self._is_late(key, each)}

    def _is_late(self, key: BreakerKey, each: Listed) -> bool:
        known = self._cache.get(key)
        if known is not None and known.resource_version == each.resource_version:
            return False
        if self._cache.is_buried(each.uid):
            return False
        return known is None or version_number(known.resource_version) < version_number(each.resource_version)

    async def _missed_deletion(self, key: BreakerKey, uid: str) -> None:
        found = await self._cluster.get(key)
        if found is None:
            if self._cache.bury(key, uid):
                self._metrics.swept.labels("missed_deletion").inc()
                self._reconcile(key)
        elif self._cache.put(found) is Change.ASKED:
            self._reconcile(key)

    async def _remove_orphans(self, keys: set[BreakerKey]) -> None:
        watched = [key for key in keys if not self._settings.namespaces or key.namespace in self._settings.namespaces]
        calls = [protocol.observe(self._settings.keys.breaker(key)) for key in watched]
        answers = await self._store.in_batches(calls)
        for key, answer in zip(watched, answers, strict=True):
            if isinstance(answer, Snapshot) and answer.owner == self._owner and answer.uid != ENVIRONMENT_OWNER:
                await self._remove_orphan(key, answer.uid)

    async def _remove_orphan(self, key: BreakerKey, uid: str) -> None:
        found = await self._cluster.get(key)
        if found is not None:
            # Made since the list was read, or under another uid: the reconcile puts that right in one step.
            self._cache.put(found)
            self._reconcile(key)
            return
        try:
            removed = await self._store.call(
                protocol.delete(self._settings.keys.breaker(key), owner=self._owner, uid=uid)
            )
        except ContractError as error:
            logger.warning("cannot remove an orphan: %s", error, extra={"breaker": key})
            return
        if removed:
            self._metrics.swept.labels("orphan").inc()
            logger.info("removed a breaker whose resource is gone", extra={"breaker": key})

    async def _tidy_states(self, keys: set[BreakerKey]) -> None:
        """Applications may write there, so that it cannot be read is no reason to call the comparison unfinished."""
        try:
            await self._compare_states(keys)
        except StoreRefusedError as error:
            self._states_outage.failed(error, remedy="it is advisory, and is kept again when its key is a hash or gone")
        else:
            self._states_outage.recovered()

    async def _compare_states(self, keys: set[BreakerKey]) -> None:
        shown: dict[BreakerKey, str] = {}
        async for field, state in self._store.shown_states():
            with suppress(ValueError):
                shown[BreakerKey.parse(field)] = state
        stale = shown.keys() - keys
        if stale and (removed := await self._store.hide_states(stale)):
            self._metrics.swept.labels("stale_state").inc(removed)
        if wrong := self._states.compare(shown):
            self._metrics.swept.labels("wrong_state").inc(wrong)
