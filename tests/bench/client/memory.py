"""Resident memory of a process over many calls of one breaker that shares its state: flat, or not."""

import multiprocessing
import os
from collections.abc import Sequence
from itertools import repeat
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, sleep

from tests.bench.client.contenders import CONTENDERS, BackendError, Contender

WARM_CALLS = 1_000_000
BLOCK = 10_000  # calls, of which the last fails: what is buffered has runs of both
LOOKS = 10
SETTLE_SECONDS = 0.5


def memory(contender: Contender, url: str, calls: int) -> list[tuple[int, int, float]]:
    """(calls made, resident bytes, seconds since the first look), the first after a warm-up and the last after all."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, contender.name, url, calls), daemon=True)
    process.start()
    theirs.close()
    looks = []
    try:
        while (look := ours.recv()) is not None:
            looks.append(look)
    finally:
        process.join(10)
        process.kill()
        process.join()
    return looks


def work(connection: Connection, name: str, url: str, calls: int) -> None:
    """The process whose memory it is."""
    protected = CONTENDERS[name].build("memory", url)
    _call(protected.call, WARM_CALLS)
    sleep(SETTLE_SECONDS)  # the buffer is flushed
    began, made = perf_counter(), 0
    connection.send((made, resident_bytes(), 0.0))
    for _ in range(LOOKS):
        _call(protected.call, calls // LOOKS)
        made += calls // LOOKS
        sleep(SETTLE_SECONDS)
        connection.send((made, resident_bytes(), perf_counter() - began))
    protected.close()
    connection.send(None)


def _call(call: object, count: int) -> None:
    assert callable(call)
    for _ in range(count // BLOCK):
        for _ in repeat(None, BLOCK - 1):
            call(1)
        try:
            call(-1)
        except BackendError:
            continue


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def mib(looks: Sequence[tuple[int, int, float]]) -> list[float]:
    """The resident memory of each look."""
    return [each[1] / 2**20 for each in looks]
