"""Steady calls of a real client process, and what they came to.

`python -m tests.chaos.traffic FOLDER NAME`, with `CB_*` as any service has them. It calls until the file `stop` is in
the folder, or SIGTERM, or a time that is far beyond any test. The backend of the breaker `flaky` is broken while the
file `broken` is there. What it has seen is in `NAME.json`, written anew ten times a second.
"""

import json
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circuitbreaker_client import CallNotPermittedError, CircuitBreakers
from circuitbreaker_local.processes import Process
from circuitbreaker_local.waiting import wait_until

ROOT = Path(__file__).parents[2]
STEADY, FLAKY, HELD = "steady", "flaky", "held"
NAMES = (STEADY, FLAKY, HELD)
ROUNDS_PER_SECOND = 40
LONGEST_SECONDS = 300.0
REPORT_SECONDS = 0.1
FLUSHES = 20


class BackendError(Exception):
    """What the backend of `flaky` raises while it is broken."""


@dataclass
class Seen:
    """What calls came to. `errors`: whatever was raised that is neither a refusal nor the backend's own error."""

    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    slowest_seconds: float = 0.0
    is_over: bool = False

    def call(self, breaker: Any, name: str, *, broken: bool) -> None:
        def backend() -> None:
            if broken and name == FLAKY:
                raise BackendError

        began = time.perf_counter()
        try:
            breaker.call(backend)
        except CallNotPermittedError:
            self.refused[name] += 1
        except BackendError:
            self.failed[name] += 1
        except Exception as error:  # noqa: BLE001 # whatever it is, it is a finding
            self.errors[f"{type(error).__name__}: {error}"] += 1
        else:
            self.done[name] += 1
        self.slowest_seconds = max(self.slowest_seconds, time.perf_counter() - began)


def write(path: Path, seen: Seen, breakers: CircuitBreakers) -> None:
    """In one step: a reader sees the old text or the new."""
    views = {
        name.partition("/")[2]: {"state": each.state, "source": each.source.name, "order": each.order}
        for name, each in breakers.snapshots().items()
    }
    counted = {
        name.partition("/")[2]: {
            "permitted": each.permitted,
            "reported": each.reported,
            "dropped": each.dropped,
            "buffered": each.buffered,
        }
        for name, each in breakers.statistics().items()
    }
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({**vars(seen), "views": views, "counted": counted}))
    beside.replace(path)


def run(folder: Path, name: str) -> None:
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s", level=logging.INFO, stream=sys.stderr)
    seen, end, report_at = Seen(), time.monotonic() + LONGEST_SECONDS, 0.0
    with CircuitBreakers.from_env() as breakers:
        called = {each: breakers[each] for each in NAMES}
        while not stopped and not (folder / "stop").exists() and time.monotonic() < end:
            broken = (folder / "broken").exists()
            for each, breaker in called.items():
                seen.call(breaker, each, broken=broken)
            if time.monotonic() >= report_at:
                write(folder / f"{name}.json", seen, breakers)
                report_at = time.monotonic() + REPORT_SECONDS
            time.sleep(1 / ROUNDS_PER_SECOND)
        for _ in range(FLUSHES):  # each waits for a moment only
            if any(each.buffered for each in breakers.statistics().values()):
                breakers.flush()
        seen.is_over = True
        write(folder / f"{name}.json", seen, breakers)


class ClientProcess:
    """One of them, from outside."""

    def __init__(
        self, folder: Path, name: str, settings: dict[str, str], *, module: str = "tests.chaos.traffic"
    ) -> None:
        self.name, self.report, self.log = name, folder / f"{name}.json", folder / f"{name}.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("CB_")} | settings
        command = [sys.executable, "-m", module, str(folder), name]
        self.process = Process(command, log=self.log, env=environment, cwd=ROOT)

    def seen(self) -> dict[str, Any]:
        """Its last report; empty before the first."""
        try:
            return json.loads(self.report.read_text())
        except FileNotFoundError:
            return {}

    def view(self, name: str) -> dict[str, Any]:
        return self.seen().get("views", {}).get(name, {})

    def calls(self) -> int:
        seen = self.seen()
        return sum(sum(seen.get(kind, {}).values()) for kind in ("done", "failed", "refused"))


class Backend:
    """What the clients call: broken while one says so."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def broken(self) -> Iterator[None]:
        (self._folder / "broken").touch()
        try:
            yield
        finally:
            (self._folder / "broken").unlink()

    def stop_traffic(self, clients: list[ClientProcess]) -> None:
        """They report what they have and end by themselves; those that were killed have ended already."""
        (self._folder / "stop").touch()
        for each in clients:
            wait_until(
                lambda each=each: not each.process.alive, timeout_seconds=20, what=f"the client {each.name} to end"
            )


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
