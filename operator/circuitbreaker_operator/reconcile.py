"""Brings one breaker in Redis to what its resource asks for: read, decide, write. Safe to repeat at any moment."""

import logging
from typing import Protocol

from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import ContractError, OwnershipError, UnknownBreakerError
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.protocol import ReplyError
from circuitbreaker_contract.state import Configured, Snapshot
from circuitbreaker_operator.cache import Cache
from circuitbreaker_operator.errors import StoreRefusedError
from circuitbreaker_operator.metrics import Metrics
from circuitbreaker_operator.plan import Plan, plan
from circuitbreaker_operator.resource import Resource
from circuitbreaker_operator.settings import Settings
from circuitbreaker_operator.store import Store

logger = logging.getLogger(__name__)


class Mirror(Protocol):
    """Who shows in the status what Redis says; the reflector."""

    def settled(self, resource: Resource, snapshot: Snapshot, decided: Plan) -> None:
        """Nothing had to be written to Redis."""

    def written(self, key: BreakerKey) -> None:
        """Something was written to Redis: look again."""

    def changed(self, key: BreakerKey) -> None:
        """Nothing was, since Redis refused it: look again."""

    def gone(self, key: BreakerKey) -> None:
        """The breaker has been removed."""


class Reconciler:
    """The handler of the work queue. Raises what should bring the key back."""

    def __init__(
        self, settings: Settings, *, owner: str, cache: Cache, store: Store, mirror: Mirror, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._owner = owner
        self._cache = cache
        self._store = store
        self._mirror = mirror
        self._metrics = metrics
        self.refusals: dict[BreakerKey, str] = {}  # what Redis said to the last attempt, where repeating may not help

    async def __call__(self, key: BreakerKey) -> None:
        with self._metrics.reconcile_seconds.time():
            try:
                await self._reconcile(key)
            except Exception:
                self._metrics.reconcile_errors.inc()
                raise

    async def _reconcile(self, key: BreakerKey) -> None:
        resource = self._cache.get(key)
        if resource is None:
            await self._remove(key)
            return
        try:
            snapshot = await self._observe(key)
            decided = plan(resource, snapshot, owner=self._owner, settings=self._settings)
            for remark in decided.remarks:
                logger.warning("%s", remark, extra={"breaker": key})
            await self._apply(resource, decided)
        except (StoreRefusedError, ReplyError, ContractError) as error:
            # ReplyError: the keys are damaged, or the library there is another one. It shows as StoreConflict, and a
            # try now and then finds out when somebody has put it right.
            self.refusals[key] = str(error)[:1024]
            self._mirror.changed(key)
            raise
        self.refusals.pop(key, None)
        if snapshot is not None and not decided.writes:
            self._mirror.settled(resource, snapshot, decided)
        else:
            self._mirror.written(key)

    async def _observe(self, key: BreakerKey) -> Snapshot | None:
        try:
            return await self._store.call(protocol.observe(self._settings.keys.breaker(key), history=8))
        except UnknownBreakerError:
            return None

    async def _apply(self, resource: Resource, decided: Plan) -> None:
        root = self._settings.keys.breaker(resource.key)
        if decided.remove:
            await self._store.call(protocol.delete(root, owner=self._owner, uid=decided.remove))
            logger.info("removed the breaker of an earlier resource of this name", extra={"breaker": resource.key})
        if decided.configure and decided.policy is not None:
            answer = await self._store.call(
                protocol.configure(
                    root,
                    owner=self._owner,
                    uid=resource.uid,
                    generation=resource.generation,
                    policy=decided.policy,
                    project=self._settings.projection,
                    resume=decided.resume,
                )
            )
            level = logging.DEBUG if answer.result in {Configured.UNCHANGED, Configured.STALE} else logging.INFO
            extra = {"breaker": resource.key, "result": answer.result, "state": answer.standing.state}
            logger.log(level, "configured", extra=extra)
        if decided.reset:
            done = await self._store.call(protocol.reset(root, uid=resource.uid, token=decided.reset))
            logger.info("reset", extra={"breaker": resource.key, "token": decided.reset, "done": done.done})

    async def _remove(self, key: BreakerKey) -> None:
        self.refusals.pop(key, None)
        uid = self._cache.gone(key)
        if uid is None:
            self._mirror.gone(key)  # of what was under way when it went
            return
        try:
            removed = await self._store.call(
                protocol.delete(self._settings.keys.breaker(key), owner=self._owner, uid=uid)
            )
        except OwnershipError:
            removed = False
        self._cache.removed(key, uid)
        if self._cache.get(key) is None:
            self._mirror.gone(key)
        if removed:
            logger.info("removed", extra={"breaker": key})
