"""Calls of one client process for as long as a soak takes: `python -m tests.soak.traffic FOLDER NAME`.

The process `second` is an asyncio one, the others are not. A backend is broken while `broken-BREAKER` is in the folder,
and `flaky` while `broken` is there. `NAME.json` is written once a second, as tests/chaos/traffic.py writes it.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from circuitbreaker_client import AsyncCircuitBreakers, CallNotPermittedError, CircuitBreakers
from tests.chaos.traffic import FLAKY, NAMES, BackendError, Seen, write

BUSY = tuple(f"busy-{number:02}" for number in range(10))
CALLED = (*NAMES, *BUSY)
ASYNC = "second"
ROUND_SECONDS = 0.25
REPORT_SECONDS = 1.0


class Calls:
    """What both kinds of process share: which backends are broken, what was seen, when to report."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._path = folder, folder / f"{name}.json"
        self._report_at = 0.0
        self.seen = Seen()
        self.stopped = False
        self.tasks = 0
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: object) -> None:
        self.stopped = True

    def broken(self) -> set[str]:
        """Breakers whose backend fails now; looks for the end, too."""
        there = {entry.name for entry in os.scandir(self._folder)}
        self.stopped = self.stopped or "stop" in there
        return {each for each in BUSY if f"broken-{each}" in there} | ({FLAKY} if "broken" in there else set())

    def failed(self, name: str, error: BaseException) -> None:
        if isinstance(error, CallNotPermittedError):
            self.seen.refused[name] += 1
        elif isinstance(error, BackendError):
            self.seen.failed[name] += 1
        else:
            self.seen.errors[f"{type(error).__name__}: {error}"] += 1

    def report(self, breakers: Any) -> None:
        if time.monotonic() >= self._report_at:
            self.write(breakers)
            self._report_at = time.monotonic() + REPORT_SECONDS

    def write(self, breakers: Any) -> None:
        write(self._path, self.seen, breakers)
        beside = self._path.with_suffix(".own")
        beside.write_text(json.dumps({"threads": threading.active_count(), "tasks": self.tasks}))


def run(calls: Calls) -> None:
    def works() -> None:
        return

    def fails() -> None:
        raise BackendError

    with CircuitBreakers.from_env() as breakers:
        called = {each: breakers[each] for each in CALLED}
        while not calls.stopped:
            broken = calls.broken()
            for name, breaker in called.items():
                try:
                    breaker.call(fails if name in broken else works)
                except Exception as error:  # noqa: BLE001 # whatever it is, it is a finding
                    calls.failed(name, error)
                else:
                    calls.seen.done[name] += 1
            calls.report(breakers)
            time.sleep(ROUND_SECONDS)
        calls.write(breakers)


async def run_async(calls: Calls) -> None:
    async def works() -> None:
        await asyncio.sleep(0)

    async def fails() -> None:
        raise BackendError

    async with AsyncCircuitBreakers.from_env() as breakers:
        called = {each: breakers[each] for each in CALLED}
        while not calls.stopped:
            broken = calls.broken()
            for name, breaker in called.items():
                try:
                    await breaker.call(fails if name in broken else works)
                except Exception as error:  # noqa: BLE001 # whatever it is, it is a finding
                    calls.failed(name, error)
                else:
                    calls.seen.done[name] += 1
            calls.tasks = len(asyncio.all_tasks())
            calls.report(breakers)
            await asyncio.sleep(ROUND_SECONDS)
        calls.write(breakers)


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s", level=logging.INFO, stream=sys.stderr)
    own = Calls(Path(sys.argv[1]), sys.argv[2])
    if sys.argv[2] == ASYNC:
        asyncio.run(run_async(own))
    else:
        run(own)
