"""Runs Kopf, which watches our resource, in a thread and an event loop of its own, and starts it again when it ends.

Kopf ends for good after most errors of a watch, after a long outage of the API server, and when a resource kind
disappears; at its end it cancels every task of its loop. None of that may take the clock, the metrics or the statuses
with it. A watch that is silent, or that does not bring what a list shows, is taken for dead and replaced.
"""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, cast

import kopf

from circuitbreaker_operator.cluster import Cluster
from circuitbreaker_operator.echoes import Echoes
from circuitbreaker_operator.errors import ClusterRefusedError, ClusterUnavailableError, GaveUpError
from circuitbreaker_operator.handlers import SILENT_AFTER_SECONDS, Life, Logins, kopf_settings, registry
from circuitbreaker_operator.logs import Outage
from circuitbreaker_operator.metrics import Metrics
from circuitbreaker_operator.resource import Resource
from circuitbreaker_operator.settings import Settings

logger = logging.getLogger(__name__)

_HEALTHY_SECONDS: Final = 60.0  # a run of this length was no failure
_GIVE_UP_SECONDS: Final = 600.0
# Of a peer, which we have none of. Left to itself Kopf asks for the user's name, and in a container there may be none.
_IDENTITY: Final = cast("Any", "circuitbreaker-operator")
_STOP_SECONDS: Final = 15.0  # it waits 5 s for its own tasks when one of them hangs
_COURTESY_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 1.0
_SUSPECT_AFTER_SECONDS: Final = 30.0
_SUSPECTED_SWEEPS: Final = 2
_DEAF_SECONDS: Final = 60.0  # a new life of Kopf after the longest pause, and its list of a large cluster


class Hearing:
    """Whether the watch brings what happens. Between one watch and the next it is deaf for a moment, and that is fine.

    Nor is it a failure of ours while the API server is away: a restart of us would not bring it back.
    """

    def __init__(self) -> None:
        self._began = False
        self._deaf_since: float | None = None

    def look(self, now: float, *, watching: bool, answers: bool) -> None:
        """How it is now; to be called every second or so."""
        if watching or not answers:
            self._began = self._began or watching
            self._deaf_since = None
        elif self._deaf_since is None:
            self._deaf_since = now

    def good(self, now: float) -> bool:
        """False until the first watch is open, and when none was for long."""
        return self._began and (self._deaf_since is None or now - self._deaf_since < _DEAF_SECONDS)


@dataclass
class _Run:
    """One life of Kopf. `loop` and `stop` are Kopf's; `ended` is ours."""

    ended: asyncio.Event
    error: BaseException | None = None
    loop: asyncio.AbstractEventLoop | None = None
    stop: asyncio.Event | None = None
    thread: threading.Thread | None = field(default=None, repr=False)

    def ask_to_stop(self) -> None:
        if self.loop is not None and self.stop is not None and not self.ended.is_set():
            try:
                self.loop.call_soon_threadsafe(self.stop.set)
            except RuntimeError:
                return  # its loop is closed already


class Edge:
    """`deliver` gets (event type, resource) in our loop; `begun` is called with each start of Kopf."""

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        metrics: Metrics,
        *,
        echoes: Echoes,
        deliver: Callable[[str | None, Resource], None],
        begun: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._metrics = metrics
        self._deliver = deliver
        self._begun = begun
        self._life = Life(settings.namespaces)
        self._echoes = echoes
        self._suspected = 0
        self._outage = Outage(logger, "watch")
        self._watch_outage = Outage(logger, "watch of the API server", remedy="it is started again")
        self.crd_seen = False
        self._hearing = Hearing()
        self._run: _Run | None = None

    @property
    def tasks(self) -> int:
        """How many tasks Kopf has; asked in any thread."""
        loop = self._run.loop if self._run is not None else None
        return len(asyncio.all_tasks(loop)) if loop is not None else 0

    @property
    def watching(self) -> bool:
        """Whether a watch is open just now."""
        return self._life.watching

    @property
    def hears(self) -> bool:
        """Whether one was open a moment ago, if not now."""
        now = time.monotonic()
        self._hearing.look(now, watching=self.watching, answers=self._cluster.answers)
        return self._hearing.good(now)

    async def attend(self) -> None:
        """Looks at the watch until cancelled, so that `hears` knows for how long there was none."""
        while True:
            self._hearing.look(time.monotonic(), watching=self.watching, answers=self._cluster.answers)
            await asyncio.sleep(_LOOK_SECONDS)

    def suspect(self, missed: int) -> None:
        """A sweep found so many resources that the watch did not bring. Once may be an outage just over."""
        self._suspected = self._suspected + 1 if missed else 0

    async def run(self) -> None:
        """Watches until cancelled. Raises GaveUpError when Kopf fails for long while the API server answers."""
        loop = asyncio.get_running_loop()
        failing_since: float | None = None
        pause = 0.5
        while True:
            await self._wait_for_resource()
            began = loop.time()
            cause = await self._one_life()
            self._metrics.watch_restarts.labels(cause).inc()
            if loop.time() - began >= _HEALTHY_SECONDS:
                failing_since, pause = None, 0.5
            elif failing_since is None:
                failing_since = began
            elif loop.time() - failing_since > _GIVE_UP_SECONDS and self._cluster.answers:
                raise GaveUpError(f"the watch ended again and again for {_GIVE_UP_SECONDS:.0f} s, last: {cause}")
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 # jitter, no secret
            pause = min(pause * 2, 15.0)

    async def _wait_for_resource(self) -> None:
        pause = 0.25
        while True:
            try:
                if await self._cluster.serves_circuitbreakers():
                    self._outage.recovered()
                    self.crd_seen = True
                    return
                self.crd_seen = False
                self._outage.failed(
                    "the CustomResourceDefinition circuitbreakers.circuitbreaker.dev is missing",
                    remedy="kubectl apply -f crds/circuitbreakers.yaml; waiting for it",
                )
            except ClusterUnavailableError as error:
                logger.debug("waiting for the API server: %s", error)
            except ClusterRefusedError as error:
                self._outage.failed(error, remedy="check the credentials; waiting until that is put right")
            await asyncio.sleep(pause)
            pause = min(pause * 1.6, 3.0)

    async def _one_life(self) -> str:
        """Starts Kopf and waits for its end; the cause in one word."""
        loop = asyncio.get_running_loop()
        run = self._run = _Run(asyncio.Event())
        self._suspected = 0
        self._life.begin()
        self._echoes.forget()
        run.thread = threading.Thread(target=self._in_thread, args=(run, loop), name="kopf", daemon=True)
        run.thread.start()
        self._begun()
        began = loop.time()
        cause = "ended"
        try:
            while not run.ended.is_set():
                try:
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await run.ended.wait()
                except TimeoutError:
                    if self._life.silent_seconds() > SILENT_AFTER_SECONDS:
                        cause = "silent"
                        break
                    if self._suspected >= _SUSPECTED_SWEEPS and loop.time() - began > _SUSPECT_AFTER_SECONDS:
                        cause = "behind"
                        break
                    if loop.time() - began > _HEALTHY_SECONDS:
                        self._watch_outage.recovered()
        except asyncio.CancelledError:
            # The process ends: Kopf only reads, so a moment to end is a courtesy, and its thread may be left behind.
            await self._stop(run, _COURTESY_SECONDS)
            raise
        stopped = await self._stop(run, _STOP_SECONDS)
        if not stopped:
            raise GaveUpError("Kopf does not stop; a new process is needed")
        self._watch_outage.failed(run.error if run.error is not None else cause)
        return cause if run.error is None else type(run.error).__name__

    async def _stop(self, run: _Run, patience_seconds: float) -> bool:
        run.ask_to_stop()
        try:
            async with asyncio.timeout(patience_seconds):
                await run.ended.wait()
        except TimeoutError:
            return False
        return True

    def _in_thread(self, run: _Run, ours: asyncio.AbstractEventLoop) -> None:
        try:
            asyncio.run(self._kopf(run, ours))
        except BaseException as error:  # noqa: BLE001 # whatever it is, the supervisor decides
            run.error = error
        finally:
            _tell(ours, run.ended.set)

    async def _kopf(self, run: _Run, ours: asyncio.AbstractEventLoop) -> None:
        run.loop, run.stop = asyncio.get_running_loop(), asyncio.Event()

        delivered = self._metrics.watch_events.labels("delivered")

        def deliver(kind: str | None, resource: Resource) -> None:
            delivered.inc()
            _tell(ours, lambda: self._deliver(kind, resource))

        async with aclosing(Logins()) as logins:
            await kopf.operator(
                registry=registry(deliver, self._cluster.credentials, self._life, self._echoes, logins),
                settings=kopf_settings(self._settings),
                clusterwide=not self._settings.namespaces,
                namespaces=self._settings.namespaces,
                stop_flag=run.stop,
                identity=_IDENTITY,
            )


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], object]) -> None:
    """Calls it in the loop; when the loop is closed, nobody wants to know any more."""
    try:
        loop.call_soon_threadsafe(what)
    except RuntimeError:
        return
