"""`make soak`: mixed load with random faults for hours. Memory, tasks, threads and descriptors have to stay flat.

Ctrl-C ends it early: everything is put right, and the table is of what was measured. The exit code is 1 when a figure
is not flat, or when a status, a history or the Events do not tell in the end what happened.
"""

import argparse
import csv
import json
import os
import secrets
import signal
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from random import Random

from circuitbreaker_local.binaries import control_plane_binaries
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.redis_server import find_redis_server
from circuitbreaker_operator.memory import keep_no_holes
from tests.chaos.stage import OPERATOR, Ways, new_redis
from tests.cluster.conftest import install_crd
from tests.relay import Relay
from tests.soak import faults, samples
from tests.soak.stage import SoakStage

SAMPLE_SECONDS = 10.0
LINE_SECONDS = 60.0
LIFE_MINUTES = 45.0


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0, metavar="M")
    parser.add_argument("--breakers", type=int, default=500, metavar="N")
    parser.add_argument(
        "--fault-every",
        type=float,
        default=60.0,
        metavar="S",
        help="from one's end to the next; half of it in the first round, when each comes once",
    )
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="of load and faults; random by default")
    parser.add_argument("--csv", type=Path, default=None, metavar="FILE", help="every sample")
    asked = parser.parse_args()
    for name in ("minutes", "breakers", "fault_every"):
        if getattr(asked, name) <= 0:
            parser.error(f"argument --{name.replace('_', '-')}: must be more than 0")
    return asked


class Soak:
    """One run. `taken` is what was measured."""

    def __init__(self, stage: SoakStage, chance: Random, *, minutes: float, fault_every: float) -> None:
        self.stage, self.chance, self.fault_every = stage, chance, fault_every
        self.began = time.monotonic()
        self.end = self.began + minutes * 60
        self.newest: list[samples.Sample] = []
        self.taken = samples.Samples()
        self.stopped = False
        self.faults = 0
        self.wrong: list[str] = []
        self._sample_at = self._line_at = 0.0

    def stop(self, *_: object) -> None:
        """Ctrl-C, or SIGTERM: what is under way is put right first."""
        self.stopped = True

    @property
    def over(self) -> bool:
        return self.stopped or time.monotonic() >= self.end

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self.began) / 60

    def run(self) -> None:
        first = faults.first_round(self.chance)
        while not self.over:
            self.load(self.fault_every / 2 if first else self.fault_every)
            if not self.stage.operator.process.alive:  # by itself: no fault is being done
                self.wrong.append(f"no operator any more: {self.stage.operator.process.obituary()}"[:2000])
                break
            if self.over:
                break
            # Long stretches between its deaths: else nobody would see its memory grow.
            may_die = self.stage.operator_minutes() > LIFE_MINUTES
            fault, seconds = first.pop() if first else faults.chosen(self.chance, operator_may_die=may_die)
            self.say(f"fault {fault.name}, {seconds} s")
            self.faults += 1
            try:
                with fault.do(self.stage):
                    self.load(seconds)
            except Exception as error:  # noqa: BLE001 # it is told in the end, and the figures are not lost for it
                traceback.print_exc()
                self.wrong.append(f"fault {fault.name}: {type(error).__name__}: {error}"[:500])

    def load(self, seconds: float) -> None:
        """About one action a second, and what is to be measured meanwhile."""
        until = min(time.monotonic() + seconds, self.end)
        while time.monotonic() < until and not self.stopped:
            self.stage.act(self.chance)
            now = time.monotonic()
            if now >= self._sample_at:
                self._sample_at = now + SAMPLE_SECONDS
                self.newest = self.stage.sample(now - self.began)
                self.taken.add(self.newest)
            if now >= self._line_at:
                self._line_at = now + LINE_SECONDS
                self.say(self.line())
            time.sleep(1.0)

    def line(self) -> str:
        newest = {process: list(found) for process, found in groupby(self.newest, key=attrgetter("process"))}
        words = [
            f"{process}: " + ", ".join(f"{each.figure} {each.value:.1f}".removesuffix(".0") for each in found)
            for process, found in newest.items()
        ]
        return "; ".join([*words, f"{self.stage.calls()} calls, {self.faults} faults"])

    def say(self, text: str) -> None:
        print(f"{self.minutes:6.1f} min  {text}", flush=True)


def main() -> int:
    """A whole soak; the exit code."""
    asked = arguments()
    keep_no_holes()  # with a heap for each thread the soak's own memory rose by 4 to 7 MiB an hour
    seed = secrets.randbelow(10**6) if asked.seed is None else asked.seed
    server, binaries = find_redis_server(), control_plane_binaries()
    print(f"seed {seed}: --minutes {asked.minutes:g} --breakers {asked.breakers} --seed {seed}; {os.cpu_count()} cores")
    with ExitStack() as stack:
        plane = stack.enter_context(ControlPlane(binaries, users={OPERATOR: ["system:masters"]}))
        install_crd(plane)
        store = stack.enter_context(new_redis(server))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        to_api, to_redis, clients_to_redis = (
            stack.enter_context(Relay(port)) for port in (plane.api_server.port, store.port, store.port)
        )
        ways = Ways(operator_to_api=to_api, operator_to_redis=to_redis, clients_to_redis=clients_to_redis)
        stage = stack.enter_context(SoakStage(plane, store, folder, ways))
        stage.fill(asked.breakers)
        soak = Soak(stage, Random(seed), minutes=asked.minutes, fault_every=asked.fault_every)
        before = {number: signal.signal(number, soak.stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            soak.run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return tell(soak, soak.wrong + stage.verdict(), asked.csv)


def tell(soak: Soak, wrong: list[str], target: Path | None) -> int:
    """The table and what is wrong; the exit code."""
    if target is not None:
        with target.open("w", newline="") as file:
            csv.writer(file).writerows([samples.Sample._fields, *soak.taken])
    found = soak.taken.rows()
    print(f"\n{soak.minutes:.0f} minutes, {soak.faults} faults, {json.dumps(soak.stage.actions)}")
    print(samples.table(found))
    print("\n".join(f"WRONG: {each}" for each in wrong) or "statuses, histories and Events tell what happened")
    return 1 if wrong or any(each.flat is False for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())
