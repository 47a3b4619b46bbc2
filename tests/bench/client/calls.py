"""What a permitted and a refused call cost: each contender in a process of its own, rounds in turn over all of them.

A process of its own, since some keep threads that would disturb the others; in turn, so that a slow moment of the
machine falls on all alike. A round calls the bare function, then the protected one. Async
calls let the event loop run every `BREATH` calls, as a service would.
"""

import asyncio
import inspect
import multiprocessing
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import repeat
from multiprocessing.connection import Connection
from time import perf_counter, sleep
from typing import Any

from tests.bench.client.contenders import CONTENDERS, Contender, Protected, charge, charge_async

ROUND_SECONDS = 0.06
MOST_CALLS, FEWEST_CALLS = 200_000, 100
BREATH = 100
OPEN_WITHIN_SECONDS = 10.0
ANSWER_SECONDS = 60.0


class ContenderError(Exception):
    """What went wrong in the process of a contender."""


@dataclass
class Costs:
    """Seconds a call, one figure a round; `permitted` and `refused` are all of it."""

    bare: list[float] = field(default_factory=list)
    permitted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)


def costs(contenders: Sequence[Contender], url: str, rounds: int) -> dict[str, Costs]:
    """Of each contender, by name."""
    context = multiprocessing.get_context("spawn")
    found = {each.name: Costs() for each in contenders}
    workers: dict[str, tuple[Any, Connection]] = {}
    try:
        for each in contenders:
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, each.name, url), daemon=True)
            process.start()
            theirs.close()
            workers[each.name] = process, ours
        for name in found:
            _ask(workers[name][1], "warm")
        for _ in range(rounds):
            for name, kept in found.items():
                bare, protected = _ask(workers[name][1], "permitted")
                kept.bare.append(bare)
                kept.permitted.append(protected)
        for name in found:
            _ask(workers[name][1], "open")
        for _ in range(rounds):
            for name, kept in found.items():
                kept.refused.append(_ask(workers[name][1], "refused")[0])
    finally:
        for process, connection in workers.values():
            with suppress(OSError):
                connection.send("end")
            process.join(10)
            process.kill()
            process.join()
    return found


def _ask(connection: Connection, what: str) -> tuple[float, ...]:
    connection.send(what)
    if not connection.poll(ANSWER_SECONDS):
        raise TimeoutError(what)
    answer = connection.recv()
    if isinstance(answer, str):
        raise ContenderError(answer)
    return answer


def work(connection: Connection, name: str, url: str) -> None:
    """One contender's process: answers each question with figures, or with the text of what went wrong."""
    contender = CONTENDERS[name]
    breaker = f"calls-{name.replace(', ', '-').lower()}"
    where = url if contender.store == "Redis" else ""
    with suppress(EOFError):  # whoever asked is gone
        if contender.is_async:
            asyncio.run(_work_async(connection, contender, breaker, where))
        else:
            _work(connection, contender, breaker, where)


def _work(connection: Connection, contender: Contender, breaker: str, where: str) -> None:
    protected = contender.build(breaker, where)
    count = FEWEST_CALLS
    while (question := connection.recv()) != "end":
        try:
            match question:
                case "warm":
                    count = _count(_sync(protected.call, FEWEST_CALLS))
                    connection.send((0.0,))
                case "permitted":
                    connection.send((_sync(charge, count), _sync(protected.call, count)))
                case "open":
                    _trip(protected)
                    count = _count(_refused(protected, FEWEST_CALLS))
                    connection.send((0.0,))
                case _:
                    connection.send((_refused(protected, count),))
        except Exception as error:  # noqa: BLE001 - it is told to whoever asked
            connection.send(f"{contender.name}: {error!r}")
    protected.close()


async def _work_async(connection: Connection, contender: Contender, breaker: str, where: str) -> None:
    protected = contender.build(breaker, where)
    count = FEWEST_CALLS
    while (question := await asyncio.to_thread(connection.recv)) != "end":
        try:
            match question:
                case "warm":
                    count = _count(await _async(protected.call, FEWEST_CALLS))
                    connection.send((0.0,))
                case "permitted":
                    connection.send((await _async(charge_async, count), await _async(protected.call, count)))
                case "open":
                    await _trip_async(protected)
                    count = _count(await _refused_async(protected, FEWEST_CALLS))
                    connection.send((0.0,))
                case _:
                    connection.send((await _refused_async(protected, count),))
        except Exception as error:  # noqa: BLE001 - it is told to whoever asked
            connection.send(f"{contender.name}: {error!r}")
    closed = protected.close()
    if inspect.isawaitable(closed):
        await closed


def _count(seconds_a_call: float) -> int:
    """How many calls a round takes."""
    return max(FEWEST_CALLS, min(MOST_CALLS, int(ROUND_SECONDS / seconds_a_call)))


def _sync(function: Any, count: int) -> float:
    began = perf_counter()
    for _ in repeat(None, count):
        function(1)
    return (perf_counter() - began) / count


async def _async(function: Any, count: int) -> float:
    spent = 0.0
    for _ in repeat(None, max(1, count // BREATH)):
        began = perf_counter()
        for _ in repeat(None, BREATH):
            await function(1)
        spent += perf_counter() - began
        await asyncio.sleep(0)
    return spent / (max(1, count // BREATH) * BREATH)


def _refused(protected: Protected, count: int) -> float:
    call, refusal = protected.call, protected.refusal
    began = perf_counter()
    for _ in repeat(None, count):
        try:
            call(1)
        except refusal:
            continue
        raise RuntimeError("permitted while it should be open")
    return (perf_counter() - began) / count


async def _refused_async(protected: Protected, count: int) -> float:
    call, refusal = protected.call, protected.refusal
    spent = 0.0
    for _ in repeat(None, max(1, count // BREATH)):
        began = perf_counter()
        for _ in repeat(None, BREATH):
            try:
                await call(1)
            except refusal:
                continue
            raise RuntimeError("permitted while it should be open")
        spent += perf_counter() - began
        await asyncio.sleep(0)
    return spent / (max(1, count // BREATH) * BREATH)


def _trip(protected: Protected) -> None:
    """Fails until a call is refused: windows that remember the good calls take more than a few."""
    deadline = perf_counter() + OPEN_WITHIN_SECONDS
    while perf_counter() < deadline:
        for _ in repeat(None, 20):
            try:
                protected.call(-1)
            except protected.refusal:
                return
            except Exception:  # noqa: BLE001 - the failure
                continue
        sleep(0.01)  # outcomes are on their way
    raise RuntimeError("does not open")


async def _trip_async(protected: Protected) -> None:
    deadline = perf_counter() + OPEN_WITHIN_SECONDS
    while perf_counter() < deadline:
        for _ in repeat(None, 20):
            try:
                await protected.call(-1)
            except protected.refusal:
                return
            except Exception:  # noqa: BLE001 - the failure
                continue
        await asyncio.sleep(0.01)
    raise RuntimeError("does not open")


def over_bare(costs: Mapping[str, Costs], name: str, of: Callable[[Sequence[float]], float]) -> float:
    """What the breaker adds to a call. The bare call is the fastest kind's of any process: what it costs in the
    process of one contender depends on what else is compiled there, which must not be a discount.
    """
    is_async = name.endswith("async")
    bare = min(of(each.bare) for other, each in costs.items() if other.endswith("async") == is_async)
    return of(costs[name].permitted) - bare


def best(figures: Sequence[float]) -> float:
    """The round that the machine disturbed least."""
    return min(figures)


def typical(figures: Sequence[float]) -> float:
    """The round in the middle."""
    return statistics.median(figures)
