"""The background thread: the only one that talks to Redis, for all breakers of a client, threads and loops alike.

It sleeps in `select` until a hint comes, somebody asks (`submit`, `hurry`, `look`), or the next flush is due. One turn
then empties the buffers and sends in one pipeline what there is: outcomes of probes, questions, reports, re-reads. It
starts with the first breaker that is used, also in a child after fork, and ends by `stop`.

One thread for both executors, instead of redis.asyncio beside it: a cancelled task cannot interrupt a reply, several
loops need no connections of their own, and what many callers ask at once goes out together.
"""

import logging
import os
import re
import selectors
import socket
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from random import random
from threading import RLock, Thread
from time import perf_counter
from typing import Final
from uuid import uuid4
from weakref import WeakValueDictionary

import redis

from circuitbreaker_client import _process
from circuitbreaker_client._core import Core
from circuitbreaker_client._grants import Ask, Grant
from circuitbreaker_client._hearing import Hearing
from circuitbreaker_client._rhythm import Rhythm
from circuitbreaker_client._signals import Signal
from circuitbreaker_client._talk import Talk
from circuitbreaker_client._wire import reach
from circuitbreaker_client.errors import StoreUnavailableError
from circuitbreaker_client.events import Event, EventHook
from circuitbreaker_client.settings import Settings
from circuitbreaker_client.snapshots import BreakerSnapshot, BreakerStatistics
from circuitbreaker_contract.keys import BreakerKey

logger = logging.getLogger("circuitbreaker_client")

AFTER_ERROR_SECONDS: Final = 0.1
NO_THREAD_SECONDS: Final = 1.0  # where none could be started it is tried again after so long
_HOST_FORM: Final = re.compile(r"[^A-Za-z0-9_.-]")


class Engine:
    """Everything that callers call is safe in any thread and never waits."""

    def __init__(self, settings: Settings, on_event: EventHook | None, pool: redis.ConnectionPool | None) -> None:
        self.settings = settings
        self.on_event = on_event
        self.epoch = 0
        self._reach = reach(settings, pool)
        self._all: WeakValueDictionary[BreakerKey, Core] = WeakValueDictionary()
        self._stopped = False
        self._begin()
        _process.register(self)

    def _begin(self) -> None:
        """As new: at the beginning, and in a child after fork."""
        self.client = f"{_host()}-{os.getpid()}-{uuid4().hex[:12]}"
        self._numbers = count(1)
        self._lock = RLock()  # a signal's handler may interrupt whoever has it, and close the client
        self._turning = RLock()  # held by the thread but for when it sleeps, and by whoever forks
        self._thread: Thread | None = None
        self.is_threadless = False  # none could be started: at a limit of the system, or at the interpreter's end
        self._start_at = 0.0
        self._waker: tuple[socket.socket, socket.socket] | None = None
        self._selector: selectors.BaseSelector | None = None
        self._is_awake = False
        self._stopping = False
        self._done = Signal()
        self._flushes: deque[Signal] = deque()
        self._urgent: set[Core] = set()
        self._dropped: deque[Grant] = deque()
        self.active: dict[str, Core] = {}
        self._talk = Talk(self.settings, self._reach, self.client)
        self._hearing = Hearing(self.settings, self._talk.nodes.anybody)
        self._watched: object = None
        self._wall = time.time() - perf_counter()
        # A fleet should not ask as one.
        self._reread_seconds = self.settings.max_staleness_seconds * (0.45 + random() / 20)  # noqa: S311
        self._rhythm = Rhythm(self.settings.flush_interval_seconds, self.settings.max_staleness_seconds)
        self._namespaces: set[str] = set()

    # --- any thread --------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Ms since the Unix epoch, by a clock that never jumps."""
        return int((self._wall + perf_counter()) * 1000)

    def next_seq(self) -> int:
        return next(self._numbers)

    def next_lease(self) -> str:
        return f"{self.client}.{next(self._numbers)}"

    def core(self, key: BreakerKey, alias: str) -> Core:
        """The one core of that name, as long as anybody holds it."""
        with self._lock:
            core = self._all.get(key)
            if core is None:
                core = self._all[key] = Core(self, key)
            core.aliases.add(alias)
            stopped = self._stopped
        if stopped:
            core.close()  # not under our lock: whoever has the breaker's may wait for ours
        return core

    def names(self) -> list[str]:
        return [core.name for core in [*self.active.values()]]

    def statistics(self) -> Mapping[str, BreakerStatistics]:
        return {core.name: core.statistics() for core in [*self.active.values()]}

    def snapshots(self) -> Mapping[str, BreakerSnapshot]:
        return {core.name: core.snapshot() for core in [*self.active.values()]}

    def make_room(self) -> set[str]:
        """Forgets a tenth of the breakers, those unused for longest; the names under which they were asked for.

        One that is still held asks anew when it is used again.
        """
        with self._lock:
            named = sorted((core for core in self._all.values() if core.aliases), key=lambda core: core.used_at)
            forgotten = named[: max(1, len(named) // 10)]
            names = {alias for core in forgotten for alias in core.aliases}
            for core in forgotten:
                core.aliases.clear()
        for core in forgotten:
            core.deactivate()
        return names

    def add(self, core: Core) -> None:
        """Keeps the breaker up to date from now on."""
        self.active[core.name] = core
        self._namespaces.add(core.key.namespace)
        self.look(core)

    def submit(self, ask: Ask) -> None:
        if self._thread is None:
            self._wake()
        if self.is_threadless:
            ask.fail(StoreUnavailableError("no thread can be started to ask Redis"))
        else:
            self._talk.submit(ask)
            self._wake()

    def look(self, core: Core) -> None:
        """Reads it again, soon."""
        self._talk.dirty.add(core)
        self._wake()

    def hurry(self, core: Core) -> None:
        """Reports what it has, soon, also when it was forgotten meanwhile."""
        self.active[core.name] = core
        self._urgent.add(core)
        self._wake()

    def rouse(self, core: Core) -> None:
        """It is used: has its buffers emptied each flush interval, as long as it is."""
        if self._rhythm.rouse(core, perf_counter()) or self.is_threadless:
            self._wake()

    def drop(self, grant: Grant) -> None:
        """A probe that nobody will end. Said by the garbage collector, in the middle of anything: it takes no lock."""
        self._dropped.append(grant)
        waker = self._waker
        if waker is not None:
            with suppress(OSError):
                waker[1].send(b".")

    def flush(self) -> Signal:
        done = Signal()
        if self._thread is None or self._stopped:
            done.set()
            return done
        self._flushes.append(done)
        self._wake()
        if self._stopped:
            done.set()
        return done

    def stop(self) -> Signal:
        """Sends what there is, gives leases back and ends. What it returns is set when that is done."""
        with self._lock:
            self._stopped = True
            thread = self._thread
            cores = [*self._all.values()]
        if thread is None or not thread.is_alive():
            for core in cores:
                core.close()
            self._done.set()
        else:
            self._stopping = self._talk.ends = True
            self._wake()
        return self._done

    def tell(self, events: list[Event]) -> None:
        hook = self.on_event
        if hook is None:
            return
        for event in events:
            try:
                hook(event)
            except Exception:
                logger.exception("on_event failed on %r", event)

    def before_fork(self) -> None:
        """Waits for the end of a turn, not much longer than one may take.

        What the thread holds in the middle of one is held for ever in the child: a module that the first connection
        imports, a lock of the C library that looks up a host.
        """
        self._turning.acquire(timeout=2 * self.settings.patience_seconds)

    def after_fork_in_parent(self) -> None:
        with suppress(RuntimeError):  # it was not to be had in time
            self._turning.release()

    def after_fork(self) -> None:
        """In a child: the thread, its connections and what was buffered are the parent's."""
        self.epoch += 1
        self._release()
        self._begin()
        if self._stopped:
            self._done.set()
        for core in [*self._all.values()]:
            core.begin()

    # --- the thread --------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._is_awake:
            return
        with self._lock:
            if self._thread is None:
                if self._stopped or perf_counter() < self._start_at:
                    return
                self._is_awake = True  # first: what interrupts us here must not start another one
                try:
                    self._start()
                except (RuntimeError, OSError) as error:  # no thread, or no descriptor, is to be had
                    self._went_without(error)
                    return
                self.is_threadless = False
            self._is_awake = True
            if self._waker is not None:
                with suppress(OSError):  # full, or closed by now: it is awake
                    self._waker[1].send(b".")

    def _start(self) -> None:
        self._waker = socket.socketpair()
        for end in self._waker:
            end.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._waker[0], selectors.EVENT_READ)
        self._thread = Thread(target=self._run, name="circuitbreaker-client", daemon=True)
        self._thread.start()

    def _went_without(self, error: Exception) -> None:
        """Breakers of this process decide alone until a thread can be started."""
        if not self.is_threadless:
            logger.warning("the background thread cannot be started, breakers decide alone: %s", error)
        self._thread, self._is_awake, self.is_threadless = None, False, True
        self._start_at = perf_counter() + NO_THREAD_SECONDS
        self._release()

    def _run(self) -> None:
        while not self._stopping:
            try:
                heard = self._sleep()
                with self._turning:
                    self._turn(heard=heard)
            except Exception:
                logger.exception("the background thread goes on after an error that should not be")
                time.sleep(AFTER_ERROR_SECONDS)
        with self._turning:
            self._end()

    def _sleep(self) -> bool:
        """Until something is to be done; whether the subscription has something to say."""
        assert self._selector is not None
        assert self._waker is not None
        listener = self._hearing.listener
        if listener is not self._watched:
            # A descriptor that was closed has left an epoll by itself, and its number may be in use again.
            self._selector.close()
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._waker[0], selectors.EVENT_READ)
            if listener is not None:
                self._selector.register(listener, selectors.EVENT_READ)
            self._watched = listener
        heard = False
        for key, _ in self._selector.select(self._rhythm.seconds_to_sleep(perf_counter())):
            if key.fileobj is listener:
                heard = True
            else:
                with suppress(OSError):
                    self._waker[0].recv(4096)
        self._is_awake = False
        return heard

    def _turn(self, *, heard: bool) -> None:
        now = perf_counter()
        due = self._rhythm.due(now)
        is_round = self._rhythm.is_round(now)
        for _ in range(len(self._dropped)):
            self._dropped.popleft().release()
        flushes = [self._flushes.popleft() for _ in range(len(self._flushes))]
        urgent = {self._urgent.pop() for _ in range(len(self._urgent))}
        hinted = self._heed() if heard else set()
        cores = [*urgent.union(hinted, due, self._busy() if is_round or flushes else ())]
        for core in cores:
            core.drain(now)
        if self.settings.state_sync:
            if is_round:
                self._sweep(now)
            self._talk.turn(cores, self.active.values(), hinted)
            if (due or is_round) and self._talk.is_up:
                self._hearing.keep({*self._namespaces}, now)
            for core in self._old() if is_round else ():
                core.expire(perf_counter())  # after Redis was asked: a process that slept has not lost it
        self._rhythm.quieten(due, now)
        for core in cores:
            with core.lock:  # or it is activated meanwhile, and then kept up to date by nobody
                if not (core.is_active or core.recording.buffered or core.settling):
                    self._forget(core)
        if is_round and self.settings.state_sync:
            self._shed()
        for done in flushes:
            done.set()

    def _forget(self, core: Core) -> None:
        self.active.pop(core.name, None)
        self._talk.forget(core)

    def _shed(self) -> None:
        """The forgotten whom nobody hears cannot say their last: no more are kept for it than others may be in use."""
        over = len(self.active) - self.settings.max_breakers
        if over <= 0:
            return
        mute = [core for core in [*self.active.values()] if not core.is_active and not self._talk.reaches(core)]
        idle = sorted(mute, key=lambda core: core.used_at)
        for core in idle[:over]:
            with core.lock:
                if not core.is_active:
                    core.recording.outbox.dropped += core.recording.outbox.discard()
                    core.settling.clear()
                    self._forget(core)

    def _busy(self) -> list[Core]:
        """Those that have something to say, and those that are to be forgotten."""
        return [
            core
            for core in [*self.active.values()]
            if core.recording.has_any or core.recording.outbox or core.settling or not core.is_active
        ]

    def _old(self) -> list[Core]:
        """Those of which nothing was heard for too long."""
        since = perf_counter() - self.settings.max_staleness_seconds
        is_up = self._talk.is_up
        return [core for core in [*self.active.values()] if core.fresh_at < since and not (core.lapsed and is_up)]

    def _heed(self) -> set[Core]:
        """Hints name breakers whose standing is to be asked for at once; a gap means to read all again."""
        gap, hints = self._hearing.hear()
        if gap:
            self._talk.dirty.update(self.active.values())
        hinted: set[Core] = set()
        for name, order in hints:
            core = self.active.get(name)
            if core is None or (order is not None and core.order is not None and order <= core.order):
                continue
            if order is None or core.order is None or order.incarnation != core.order.incarnation:
                self._talk.dirty.add(core)  # another one of that name: it does not know our reports
            elif order.generation == core.order.generation:
                self._talk.dirty.add(core)  # another policy
            else:
                hinted.add(core)
        return hinted

    def _sweep(self, now: float) -> None:
        """Reads again what was not heard of for half of the staleness bound.

        What nobody uses lapses instead: its next call asks first. One is read whatever happens, so that a process that
        is idle notices Redis' silence too.
        """
        cores = [*self.active.values()]
        old = [core for core in cores if now - core.fresh_at > self._reread_seconds and not core.lapsed]
        newest = max(cores, key=lambda core: core.used_at) if old else None
        for core in old:
            unused = now - core.used_at > self.settings.max_staleness_seconds
            if unused and core is not newest and self._talk.is_up:
                core.lapse()
            else:
                self._talk.dirty.add(core)

    def _end(self) -> None:
        try:
            with self._lock:
                cores = [*self._all.values()]
            for core in cores:
                core.close()
            if self.settings.state_sync:
                self._talk.last_turn(cores)
        except Exception:
            logger.exception("the last outcomes could not be sent")
        self._release()
        self.active.clear()
        for done in [*self._flushes]:
            done.set()
        self._done.set()

    def _release(self) -> None:
        self._talk.close()
        self._hearing.close()
        if self._selector is not None:
            self._selector.close()
        waker, self._waker = self._waker, None
        for end in waker or ():
            end.close()


def _host() -> str:
    """What tells people where a client runs, as a part of its id."""
    return _HOST_FORM.sub("-", socket.gethostname())[:30] or "client"
