"""Wires the parts together and runs them until somebody asks it to stop.

Every part is a task of one group: one that crashes is an error that is said and ends the process, never a silence.
Start: HTTP and the page first (so that whoever asks has an answer), then whose breakers these are, then the lease, then
everything at once; each part waits by itself for what it needs. A standby waits for the lease and does nothing else.
Stop: everything is cancelled, Kopf first asked, all of it within `STOP_SECONDS`, and then the lease is given back.
"""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from circuitbreaker_contract.errors import CircuitBreakerError
from circuitbreaker_operator import logs
from circuitbreaker_operator.cache import Cache, Change
from circuitbreaker_operator.clock import Clock
from circuitbreaker_operator.cluster import Cluster
from circuitbreaker_operator.credentials import Credentials
from circuitbreaker_operator.echoes import Echoes
from circuitbreaker_operator.edge import Edge
from circuitbreaker_operator.elector import Elector
from circuitbreaker_operator.errors import (
    ClusterRefusedError,
    ClusterUnavailableError,
    SettingsError,
)
from circuitbreaker_operator.exposition import BreakerPage
from circuitbreaker_operator.fence import Fence
from circuitbreaker_operator.health import report
from circuitbreaker_operator.live import Live
from circuitbreaker_operator.metrics import Book, FleetCollector, Metrics
from circuitbreaker_operator.reconcile import Reconciler
from circuitbreaker_operator.reflector import Reflector
from circuitbreaker_operator.refresh import Refresh
from circuitbreaker_operator.resource import Resource
from circuitbreaker_operator.settings import Settings
from circuitbreaker_operator.shared_states import SharedStates
from circuitbreaker_operator.site import Site
from circuitbreaker_operator.status import UNAVAILABLE_AFTER_SECONDS
from circuitbreaker_operator.store import Store
from circuitbreaker_operator.subscription import Hint, Subscription
from circuitbreaker_operator.sweep import Sweep
from circuitbreaker_operator.telling import Telling
from circuitbreaker_operator.web import Web
from circuitbreaker_operator.workqueue import WorkQueue

logger = logging.getLogger(__name__)

STOP_SECONDS: Final = 5.0
_POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_OUTAGE_LOOK_SECONDS: Final = 5.0
_SWITCH_SECONDS: Final = 0.001
_STUCK_SECONDS: Final = 60.0  # a loop that did not come round for this long does not come round any more


class Operator:
    """One operator. `run` serves until cancelled; `http_port` is there once `serving` is set."""

    def __init__(self, settings: Settings, fence: Fence | None = None) -> None:
        self.settings = settings
        self._fence = fence or Fence()
        self._elector: Elector | None = None
        self._leads = False
        self._reached = False  # a standby has had an answer of Redis, so its settings are right
        self.metrics = Metrics()
        self.book = Book()
        self.cache = Cache()
        self.serving = asyncio.Event()
        self._began = self._turned = time.monotonic()
        self._turning = False
        self._edge: Edge | None = None
        self._sweep: Sweep | None = None
        self._cluster: Cluster | None = None
        self._store: Store | None = None
        self._subscription: Subscription | None = None
        self.metrics.resources.set_function(lambda: len(self.cache))
        self._live = Live(self.book, self.cache, condition=self.condition) if settings.web else None
        self._web = Web(
            self.metrics.registry,
            site=Site(self._live, hosts=settings.web_hosts) if self._live is not None else None,
            page=BreakerPage(self.book) if settings.metrics_per_breaker else None,
            checks=self.checks,
            health=self.health,
            alive=lambda: self._silence() < _STUCK_SECONDS,
        )

    @property
    def http_port(self) -> int:
        return self._web.port

    @property
    def ready(self) -> bool:
        return all(self.checks().values())

    def checks(self) -> dict[str, bool]:
        """What readiness asks: store, resource kind, its watch, one whole comparison.

        Of a standby the lease, and that Redis answered once: an update to a wrong address or password waits for it.
        """
        if self._elector is not None and not self._leads:
            return {"standby": self._elector.sees, "redis": self._reached}
        return {
            "redis": self._store is not None and self._store.up.is_set(),
            "crd": self._edge is not None and self._edge.crd_seen and (self._sweep is None or not self._sweep.missing),
            "watch": self._edge is not None and self._edge.hears,
            "synced": self._sweep is not None and self._sweep.done_once,
        }

    def health(self) -> dict[str, Any]:
        uptime_seconds = time.monotonic() - self._began
        store, cluster = self._store, self._cluster
        if self._elector is not None and not self._leads:
            components = {"lease": _component(self._elector.sees)}
            return report(self.book, components=components, uptime_seconds=uptime_seconds) | {"role": "standby"}
        components = {
            "redis": _component(store is not None and store.up.is_set(), store.latency_seconds if store else None),
            "kubernetes": _component(
                cluster is not None and cluster.answers, cluster.latency_seconds if cluster else None
            ),
            "watch": _component(self._edge is not None and self._edge.watching),
            "subscription": _component(self._subscription is not None and self._subscription.alive),
        }
        return report(self.book, components=components, uptime_seconds=uptime_seconds) | {"role": "leader"}

    def condition(self) -> dict[str, Any]:
        """How the operator is, as the page tells it."""
        elector, store, cluster = self._elector, self._store, self._cluster
        told: dict[str, Any] = {"namespaces": self.settings.namespaces, "version": version("circuitbreakers")}
        if not self._leads:
            role = "standby" if elector is not None else "starting"
            holder = elector.holder.partition("_")[0] if elector is not None else ""
            told |= {"role": role, "leader": holder, "leaseNamespace": lease_namespace(self.settings) or ""}
            return told | {"leaseSeen": elector is None or elector.sees}
        return told | {
            "role": "leader",
            "redis": store is not None and store.up.is_set(),
            "redisAwaySeconds": round(store.outage_seconds) if store is not None else 0,
            "api": cluster is not None and cluster.answers,
            "kind": self.checks()["crd"],
            "synced": self.checks()["synced"],
        }

    async def run(self) -> None:
        """Serves until cancelled. Raises SettingsError or the error of the part that crashed, also in a group."""
        loop = asyncio.get_running_loop()
        self.metrics.tasks.labels("operator").set_function(lambda: len(asyncio.all_tasks(loop)))
        self.metrics.tasks.labels("watch").set_function(lambda: self._edge.tasks if self._edge is not None else 0)
        # Kopf's thread may hold the interpreter for a whole interval while a deadline passes in ours.
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
        settings = self.settings
        telling, credentials = Telling(), Credentials()
        cluster = Cluster(credentials, await credentials.client(), check=self._fence.check, telling=telling)
        self._cluster = cluster
        store = self._store = Store(settings, self.metrics, check=self._fence.check)
        # Renewals have a client of their own: what waits for its turn there does not wait for statuses.
        renewals = Cluster(credentials, await credentials.client(), says=False, telling=telling)
        try:
            if (namespace := lease_namespace(settings)) is not None:
                self._elector = Elector(settings, renewals, self._fence, namespace=namespace)
            await self._web.start(settings.http_host, settings.http_port)
            self.serving.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._turn(), name="turn")
                if self._live is not None:
                    group.create_task(self._live.run(), name="page")
                owner = settings.owner or await _owner(cluster)
                logger.info(
                    "starting",
                    extra={
                        "owner": owner,
                        "redis": settings.redis_address,
                        "api": cluster.address,
                        "prefix": settings.key_prefix,
                        "namespaces": ",".join(settings.namespaces) or "all",
                    },
                )
                if self._elector is not None:
                    reaching = group.create_task(self._reach(store), name="redis of a standby")
                    await self._elector.acquire()
                    reaching.cancel()
                    group.create_task(self._elector.hold(), name="lease")
                self._lead()
                await self._run_parts(owner, cluster, store)
        finally:
            if self._elector is not None:
                await self._elector.release()
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._web.close()
                    await renewals.close()
                    await cluster.close()
                    await store.close()

    async def _reach(self, store: Store) -> None:
        await store.reach()
        self._reached = True

    def _lead(self) -> None:
        self._leads = True
        self.metrics.lead()
        self.metrics.registry.register(FleetCollector(self.book))

    async def _run_parts(self, owner: str, cluster: Cluster, store: Store) -> None:
        settings, metrics, cache = self.settings, self.metrics, self.cache
        echoes = Echoes(dropped=metrics.watch_events.labels("own").inc)
        reflector = Reflector(
            settings,
            owner=owner,
            cache=cache,
            store=store,
            cluster=cluster,
            echoes=echoes,
            book=self.book,
            metrics=metrics,
        )
        reconciler = Reconciler(settings, owner=owner, cache=cache, store=store, mirror=reflector, metrics=metrics)
        queue = WorkQueue(reconciler, metrics=metrics.queue("reconcile"), gate=store.up)
        clock = Clock(store, settings.keys, metrics, ticked=reflector.ticked, lost=queue.add)
        reflector.clock, reflector.reconcile, reflector.refusals = clock, queue.add, reconciler.refusals

        def deliver(kind: str | None, resource: Resource) -> None:
            if kind == "DELETED":
                if cache.bury(resource.key, resource.uid):
                    queue.add(resource.key)
                return
            match cache.put(resource, listed=kind is None):
                case Change.ASKED:
                    queue.add(resource.key)
                case Change.STATUS:
                    reflector.changed(resource.key)  # somebody else wrote it: put it right
                case Change.NOTHING:
                    pass

        def compare() -> None:
            refresh.ask()
            sweep.ask()

        def emptied() -> None:
            compare()
            reflector.deferred.mark_again()

        refresh = Refresh(cache, store, clock, self.book, interval_ms=settings.status_refresh_ms, emptied=emptied)
        states = SharedStates(settings, store, self.book)

        def begun() -> None:
            sweep.allowed.set()
            sweep.ask()

        edge = self._edge = Edge(settings, cluster, metrics, echoes=echoes, deliver=deliver, begun=begun)
        sweep = self._sweep = Sweep(
            settings,
            owner=owner,
            cache=cache,
            store=store,
            cluster=cluster,
            metrics=metrics,
            states=states,
            reconcile=queue.add,
            behind=edge.suspect,
        )

        if self._live is not None:
            self._live.lead(store, settings.keys, owner)

        def heard(hint: Hint) -> bool:
            states.look(hint.key)
            if self._live is not None:
                self._live.heard(hint.key)
            return reflector.heard(hint)

        subscription = self._subscription = Subscription(settings, store, metrics, heard=heard, gap=compare)
        deferred = reflector.deferred
        store.returned.append(emptied)
        sweep.completed.append(deferred.compared)
        cluster.returned += [reflector.hurry, deferred.hurry, queue.hurry]
        async with asyncio.TaskGroup() as group:
            for part in (store, queue, clock, reflector, deferred, refresh, states, subscription, sweep, edge):
                group.create_task(part.run(), name=type(part).__name__)
            group.create_task(edge.attend(), name="hearing")
            group.create_task(_watch_outage(store, reflector), name="outage")

    async def _turn(self) -> None:
        """Shows that the loop comes round."""
        self._turning = True
        while True:
            self._turned = time.monotonic()
            await asyncio.sleep(1.0)

    def _silence(self) -> float:
        return time.monotonic() - self._turned if self._turning else 0.0


@asynccontextmanager
async def running_operator(settings: Settings) -> AsyncIterator[Operator]:
    """An operator in this event loop, for tests and the demo. It is `serving` inside, not necessarily ready."""
    operator = Operator(settings)
    task = asyncio.create_task(operator.run(), name="operator")
    serving = asyncio.create_task(operator.serving.wait())
    try:
        await asyncio.wait({task, serving}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield operator
    finally:
        serving.cancel()
        await stop(task)


async def stop(task: asyncio.Task[None]) -> None:
    """Cancels an operator's task and waits for its end; raises what it crashed with."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def lease_namespace(settings: Settings, pod: Path = _POD_NAMESPACE) -> str | None:
    """Where the Lease is; None: there is no election. Raises SettingsError."""
    if settings.leader_election == "false":
        return None
    try:
        own = pod.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        own = ""
    if settings.leader_election == "auto" and not own:
        return None
    if not (settings.lease_namespace or own):
        raise SettingsError("CB_LEASE_NAMESPACE: is needed with CB_LEADER_ELECTION=true outside of a pod")
    return settings.lease_namespace or own


async def _owner(cluster: Cluster) -> str:
    """The uid of the namespace kube-system, which is as good as a name for the cluster; waits for the API server."""
    outage = logs.Outage(
        logger, f"API server at {cluster.address}", remedy="waiting for it, to learn whose breakers these are"
    )
    pause = 0.25
    while True:
        try:
            uid = await cluster.namespace_uid("kube-system")
        except ClusterUnavailableError as error:
            logger.debug("waiting for the owner: %s", error)  # said by cluster.py
        except ClusterRefusedError as error:
            if error.status == 403:
                text = "CB_OWNER: set it, or let the operator get the namespace kube-system, whose uid is the default"
                raise SettingsError(f"{text} ({error})") from error
            outage.failed(error)
        else:
            outage.recovered()
            return uid
        await asyncio.sleep(pause)
        pause = min(pause * 1.6, 3.0)


async def _watch_outage(store: Store, reflector: Reflector) -> None:
    """After a minute without Redis, shows it on the breakers that wait for it. Asks an idle Redis now and then."""
    while True:
        await asyncio.sleep(_OUTAGE_LOOK_SECONDS)
        if not store.up.is_set():
            if store.outage_seconds >= UNAVAILABLE_AFTER_SECONDS:
                await reflector.show_outage()
            continue
        with suppress(CircuitBreakerError):
            await store.look()


def _component(up: bool, latency_seconds: float | None = None) -> dict[str, Any]:
    component: dict[str, Any] = {"status": "up" if up else "down"}
    if latency_seconds is not None:
        component["latency_ms"] = round(latency_seconds * 1000, 3)
    return component
