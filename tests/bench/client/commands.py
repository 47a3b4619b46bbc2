"""What Redis is asked while one process makes 10,000 calls a second, all good or one in 1,000 failing.

`sent` counts what comes over the wire (MONITOR tells what functions and scripts run inside from it); `executed` is what
INFO adds to `total_commands_processed`. Whoever cannot make that many calls makes what it can.
"""

import asyncio
import inspect
import threading
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Self

import redis

from tests.bench.client.contenders import Contender, Protected

CALLS_PER_SECOND = 10_000
TICK_SECONDS = 0.002
FAILING = 1_000
SETTLE_SECONDS = 0.3  # what is buffered is on its way


@dataclass(frozen=True)
class Load:
    """Per 1,000 calls, and how many calls a second were made."""

    sent: float
    executed: float
    calls_per_second: float


class Monitor:
    """Counts the commands that come over the wire, while entered."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._stop = threading.Event()
        self.sent = 0

    def __enter__(self) -> Self:
        self._monitor = self._client.monitor()
        self._monitor.__enter__()
        self._thread = threading.Thread(target=self._count)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._client.ping()  # the line that lets the thread see it
        self._thread.join()
        self._monitor.__exit__(None, None, None)
        self._client.close()

    def _count(self) -> None:
        while not self._stop.is_set():
            told = self._monitor.next_command()
            # our own are INFO and PING, the first of which no contender sends
            if told["client_type"] != "lua" and told["command"].split(" ", 1)[0] != "INFO":
                self.sent += 1


def load(contender: Contender, url: str, seconds: float, failing: int) -> Load:
    """Measured with the contender in this process; one call in `failing` fails, none when it is 0."""
    name = f"commands-{failing}-{contender.name.replace(', ', '-').lower()}"
    with redis.Redis.from_url(url) as client, Monitor(url) as monitor:
        if contender.is_async:
            return asyncio.run(_load_async(contender, name, url, seconds, failing, client, monitor))
        protected = contender.build(name, url)
        try:
            _calls(protected, 0.5, failing)  # connections, first reads
            sleep(SETTLE_SECONDS)
            sent, executed = monitor.sent, _executed(client)
            calls, took = _calls(protected, seconds, failing)
            sleep(SETTLE_SECONDS)
            return _load(monitor.sent - sent, _executed(client) - executed, calls, took)
        finally:
            protected.close()


async def _load_async(
    contender: Contender, name: str, url: str, seconds: float, failing: int, client: redis.Redis, monitor: Monitor
) -> Load:
    protected = contender.build(name, url)
    try:
        await _calls_async(protected, 0.5, failing)
        await asyncio.sleep(SETTLE_SECONDS)
        sent, executed = monitor.sent, _executed(client)
        calls, took = await _calls_async(protected, seconds, failing)
        await asyncio.sleep(SETTLE_SECONDS)
        return _load(monitor.sent - sent, _executed(client) - executed, calls, took)
    finally:
        closed = protected.close()
        if inspect.isawaitable(closed):
            await closed


def _load(sent: int, executed: int, calls: int, took: float) -> Load:
    # each look at INFO counts itself once
    return Load(sent / calls * 1000, (executed - 1) / calls * 1000, calls / took)


def _executed(client: redis.Redis) -> int:
    return int(client.info("stats")["total_commands_processed"])


def _calls(protected: Protected, seconds: float, failing: int) -> tuple[int, float]:
    began, calls = monotonic(), 0
    while (elapsed := monotonic() - began) < seconds:
        due = int(elapsed * CALLS_PER_SECOND)
        for _ in range(min(due - calls, 200)):
            calls += 1
            with suppress(Exception):
                protected.call(-1 if failing and calls % failing == 0 else 1)
        sleep(TICK_SECONDS)
    return calls, monotonic() - began


async def _calls_async(protected: Protected, seconds: float, failing: int) -> tuple[int, float]:
    began, calls = monotonic(), 0
    while (elapsed := monotonic() - began) < seconds:
        due = int(elapsed * CALLS_PER_SECOND)
        for _ in range(min(due - calls, 200)):
            calls += 1
            with suppress(Exception):
                await protected.call(-1 if failing and calls % failing == 0 else 1)
        await asyncio.sleep(TICK_SECONDS)
    return calls, monotonic() - began
