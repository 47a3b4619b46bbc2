"""From the outcome that trips to the last of 50 other processes refusing, over many openings, each of a new breaker.

The clock is CLOCK_MONOTONIC, one for all processes of a machine. It starts right before the call whose failure trips,
in a process of its own. Every process has made a permitted call before, and the earlier failures have arrived.

Then each process makes its next call. Where the library tells a process that the breaker has opened, the process
sleeps, and makes a call where it is told, which is refused. Elsewhere it calls every `pace_ms`, from a moment of its
own within the first pace: up to a pace is added to what the library takes. (Nobody calls between the failures: in all
of these libraries a success of any process would end the streak.)

Each keeps its moment to itself until QUIET_SECONDS after the failure: who collects it would need the processors that
the others still wait for.
"""

import asyncio
import gc
import inspect
import multiprocessing
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from time import monotonic, monotonic_ns, sleep
from typing import Any

from tests.bench.client.calls import ContenderError
from tests.bench.client.contenders import CONTENDERS, THRESHOLD, Contender, Protected, define

PROCESSES = 50
GIVE_UP_SECONDS = 3.0  # who is not refused by then never will be
ANSWER_SECONDS = 20.0
START_SECONDS = 120.0
ARRIVE_SECONDS = 0.15  # what is buffered is there: the first calls before the failures, and these before the last one
QUIET_SECONDS = 0.5
HEAD_START_SECONDS = 0.005  # for the failure that trips: a success that overtakes it would end the streak


@dataclass
class Openings:
    """Milliseconds until the last process refused, of each opening; and how many openings never came about."""

    ms: list[float] = field(default_factory=list)
    lost: int = 0


def openings(contender: Contender, url: str, count: int) -> Openings:
    """One after another."""
    names = [f"opening-{contender.library}-{number}".lower() for number in range(count)]
    if contender.library == "ours":
        define(url, ["first", *names])  # as an operator has done long before
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.bench.client.contenders"])
    workers: list[tuple[Any, Connection]] = []
    found = Openings()
    try:
        for number in range(PROCESSES + 1):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, contender.name, url, number == 0), daemon=True)
            process.start()
            theirs.close()
            workers.append((process, ours))
        connections = [connection for _, connection in workers]
        _answers(connections, START_SECONDS)
        for name in names:
            for connection in connections:
                connection.send(name)
            _answers(connections, ANSWER_SECONDS)
            at = monotonic() + 2 * ARRIVE_SECONDS
            for position, connection in enumerate(connections):
                phase = HEAD_START_SECONDS + position / PROCESSES * contender.pace_ms / 1000
                connection.send(at if position == 0 else at + phase)
            stamps = _answers(connections, ANSWER_SECONDS)
            tripped = stamps.pop(connections[0])
            if 0 in stamps.values():
                found.lost += 1
            else:
                found.ms.append((max(stamps.values()) - tripped) / 1e6)
    finally:
        for _, connection in workers:
            with suppress(OSError):
                connection.send("")
        for process, _ in workers:
            process.join(10)
            process.kill()
            process.join()
    return found


def _answers(connections: Sequence[Connection], within_seconds: float) -> dict[Connection, int]:
    """One from each."""
    deadline = monotonic() + within_seconds
    answers: dict[Connection, int] = {}
    while len(answers) < len(connections):
        left = [each for each in connections if each not in answers]
        ready = wait(left, deadline - monotonic())
        if not ready:
            raise TimeoutError(f"{len(left)} processes did not answer within {within_seconds:.0f} s")
        for each in ready:
            answer = each.recv()
            if isinstance(answer, str):
                raise ContenderError(answer)
            answers[each] = answer
    return answers


def work(connection: Connection, name: str, url: str, trips: bool) -> None:
    """A process: for each breaker named, one call; then it trips it, or watches until it is refused."""
    contender = CONTENDERS[name]
    gc.freeze()  # children of one parent have one history: they would collect what they share in the same moment
    first = contender.build("first", url) if not contender.is_async else None
    connection.send(0)
    with suppress(EOFError):  # whoever asked is gone
        while breaker := connection.recv():
            try:
                if contender.is_async:
                    asyncio.run(_opening_async(connection, contender, breaker, url, trips))
                else:
                    _opening(connection, contender, breaker, url, trips)
            except Exception as error:  # noqa: BLE001 - it is told to whoever asked
                connection.send(f"{contender.name}: {error!r}")
    if first:
        first.close()


class Told:
    """The library says that it is Open: a call is made right there, and is refused."""

    def __init__(self) -> None:
        self.refused_at = 0

    def ring(self, protected: Protected) -> None:
        try:
            protected.call(1)  # should it pass, the process goes on to call until it is refused
        except protected.refusal:
            self.refused_at = monotonic_ns()


def _opening(connection: Connection, contender: Contender, breaker: str, url: str, trips: bool) -> None:
    told = Told()
    protected = contender.build(breaker, url)
    if protected.on_open:
        protected.on_open(lambda: told.ring(protected))
    try:
        protected.call(1)
        connection.send(0)
        begin = connection.recv()
        if trips:
            sleep(max(0.0, begin - ARRIVE_SECONDS - monotonic()))
            for _ in range(THRESHOLD - 1):
                with suppress(Exception):
                    protected.call(-1)
        if protected.on_open is None or trips:
            sleep(max(0.0, begin - monotonic()))
        if trips:
            stamp = monotonic_ns()
            with suppress(Exception):
                protected.call(-1)
            _until_refused(protected, 0.001)
        else:
            if protected.on_open:
                sleep(max(0.0, begin + QUIET_SECONDS - monotonic()))
            stamp = told.refused_at or _until_refused(protected, contender.pace_ms / 1000)
        sleep(max(0.0, begin + QUIET_SECONDS - monotonic()))
        connection.send(stamp)
    finally:
        (protected.leave or protected.close)()


def _until_refused(protected: Protected, pace_seconds: float) -> int:
    """When; 0 when never."""
    deadline = monotonic() + GIVE_UP_SECONDS
    while monotonic() < deadline:
        try:
            protected.call(1)
        except protected.refusal:
            return monotonic_ns()
        sleep(pace_seconds)
    return 0


async def _opening_async(connection: Connection, contender: Contender, breaker: str, url: str, trips: bool) -> None:
    protected = contender.build(breaker, url)
    try:
        await protected.call(1)
        connection.send(0)
        begin = await asyncio.to_thread(connection.recv)
        if trips:
            await asyncio.sleep(max(0.0, begin - ARRIVE_SECONDS - monotonic()))
            for _ in range(THRESHOLD - 1):
                with suppress(Exception):
                    await protected.call(-1)
        await asyncio.sleep(max(0.0, begin - monotonic()))
        if trips:
            stamp = monotonic_ns()
            with suppress(Exception):
                await protected.call(-1)
            await _until_refused_async(protected, 0.001)
        else:
            stamp = await _until_refused_async(protected, contender.pace_ms / 1000)
        await asyncio.sleep(max(0.0, begin + QUIET_SECONDS - monotonic()))
        connection.send(stamp)
    finally:
        closed = protected.close()
        if inspect.isawaitable(closed):
            await closed


async def _until_refused_async(protected: Protected, pace_seconds: float) -> int:
    deadline = monotonic() + GIVE_UP_SECONDS
    while monotonic() < deadline:
        try:
            await protected.call(1)
        except protected.refusal:
            return monotonic_ns()
        await asyncio.sleep(pace_seconds)
    return 0
