"""`make bench-scale`: ten thousand breakers. Prints what the operator costs and how late it is; asserts nothing.

Half of the breakers recover after seconds and carry the steady transitions, half stay Open for an hour and carry the
storm. What was written is counted by the API server itself; what happened is heard on Redis' channel.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio

from circuitbreaker_contract import protocol
from circuitbreaker_contract.keys import BreakerKey, Keys
from circuitbreaker_contract.state import Outcome, State
from circuitbreaker_local.binaries import control_plane_binaries
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.redis_server import RedisServer, find_redis_server
from circuitbreaker_operator.events import base36
from tests.bench.api import ROOT, Api, api_of
from tests.cluster.world import OperatorProcess, World
from tests.cluster.writes import Writes

CRD = Path(__file__).parents[2] / "crds" / "circuitbreakers.yaml"
KEYS = Keys()
STEADY_SECONDS = 5  # of an opening
GIVE_UP_SECONDS = 600.0
Transition = tuple[str, int, int]  # "namespace/name", incarnation, generation


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--breakers", type=int, default=10_000, metavar="N")
    parser.add_argument("--namespaces", type=int, default=100, metavar="N")
    parser.add_argument("--status-qps", type=int, default=100, metavar="N", help="CB_STATUS_QPS, but while applying")
    parser.add_argument("--apply-qps", type=int, default=400, metavar="N", help="CB_STATUS_QPS while applying")
    parser.add_argument("--idle-seconds", type=float, default=60.0, metavar="S")
    parser.add_argument("--steady-minutes", type=float, default=10.0, metavar="M", help="of 50 transitions a second")
    parser.add_argument(
        "--storm", type=int, default=5_000, metavar="N", help="open at once; half of N breakers at most"
    )
    return parser.parse_args()


def say(what: str, text: str) -> None:
    print(f"{what:<66} {text}", flush=True)


def percentiles(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    ranked = sorted(seconds)
    p50, p99 = (ranked[min(len(ranked) - 1, round(share * len(ranked)))] for share in (0.5, 0.99))
    return f"p50 {p50 * 1000:,.0f} ms   p99 {p99 * 1000:,.0f} ms   max {ranked[-1] * 1000:,.0f} ms   n={len(ranked):,}"


@dataclass
class Seen:
    """What a watcher of the API server knows; and what was heard on Redis' channel."""

    ready: dict[str, float] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)
    at: dict[str, tuple[int, int]] = field(default_factory=dict)  # incarnation and generation of the status
    uids: dict[str, str] = field(default_factory=dict)
    heard: dict[Transition, float] = field(default_factory=dict)
    lags: list[float] = field(default_factory=list)
    waiting: dict[str, dict[Transition, float]] = field(default_factory=dict)  # heard, and not in a status yet
    per_second: Counter[int] = field(default_factory=Counter)  # changes of status

    def saw(self, body: dict[str, Any], now: float) -> None:
        metadata, status = body["metadata"], body.get("status") or {}
        name = f"{metadata['namespace']}/{metadata['name']}"
        self.uids[name] = metadata["uid"]
        if not status:
            return
        self.per_second[int(now)] += 1
        self.state[name] = status.get("state", "")
        if any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", [])):
            self.ready.setdefault(name, now)
        shown = self.at[name] = (int(status.get("incarnation", 0)), int(status.get("stateGeneration", 0)))
        for each, at in [*self.waiting.get(name, {}).items()]:
            if each[1:] <= shown:
                self.lags.append(now - at)
                del self.waiting[name][each]

    def hear(self, text: bytes, now: float) -> None:
        said = json.loads(text)
        if said["state"] == "" or said.get("previous", "") == "":
            return
        each = (said["service"], int(said["incarnation"]), int(said["generation"]))
        if each in self.heard:
            return
        self.heard[each] = now
        if self.at.get(each[0], (0, 0)) < each[1:]:
            self.waiting.setdefault(each[0], {})[each] = now

    @property
    def behind(self) -> int:
        return sum(map(len, self.waiting.values()))


class Scale:
    """One run."""

    def __init__(self, asked: argparse.Namespace, world: World, api: Api, client: "redis.asyncio.Redis") -> None:
        self.asked, self.world, self.api, self.redis = asked, world, api, client
        self.seen = Seen()
        self.helpers: list[asyncio.Task[None]] = []  # they go on as long as the run
        spaces = [f"scale-{number}" for number in range(asked.namespaces)]
        self.names = [f"{spaces[number % len(spaces)]}/breaker-{number}" for number in range(asked.breakers)]
        self.steady_names, self.storm_names = self.names[::2], self.names[1::2]
        self.spaces = spaces

    @asynccontextmanager
    async def operator(self, qps: int) -> AsyncIterator[OperatorProcess]:
        with self.world.operator(STATUS_QPS=str(qps), SWEEP_INTERVAL="60s") as operator:
            began = time.monotonic()
            await self.until(lambda: operator.ready, "the operator to be ready")
            say("start -> ready", f"{time.monotonic() - began:.1f} s")
            yield operator

    async def until(self, condition: Any, what: str, step_seconds: float = 0.1) -> None:
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while not await asyncio.to_thread(condition):
            for helper in self.helpers:
                if helper.done():
                    await helper
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited in vain for {what}")
            await asyncio.sleep(step_seconds)

    async def apply(self) -> None:
        """From the first create to the last Ready at a watcher."""
        for space in self.spaces:
            await self.api.post("/api/v1/namespaces", {"metadata": {"name": space}})
        began, spent, writes = time.monotonic(), processor_seconds(), await self.api.writes()
        await asyncio.gather(*(self._create(name) for name in self.names))
        created = time.monotonic()
        await self.until(lambda: len(self.seen.ready) == len(self.names), "all to be Ready")
        seconds = max(self.seen.ready.values()) - began
        say(
            f"{len(self.names):,} breakers in {len(self.spaces)} namespaces: apply -> all Ready",
            f"{seconds:.1f} s (creating took {created - began:.1f} s; CB_STATUS_QPS={self.asked.apply_qps})",
        )
        say("  seconds of processor meanwhile", told_seconds(spent, processor_seconds()))
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while (await self.api.writes()).since(writes).events < len(self.names):
                await asyncio.sleep(0.1)
        told = f"{time.monotonic() - began:.1f} s   writes: {await self.difference(writes)}"
        say("  all their Events are told", told)

    async def _create(self, name: str) -> None:
        space, own = name.split("/")
        recovery = f"{STEADY_SECONDS}s" if name in self._steady else "1h"
        spec = {"failureThreshold": 1, "recoveryTimeout": recovery, "successThreshold": 1}
        body = {"apiVersion": "circuitbreaker.dev/v1alpha1", "kind": "CircuitBreaker", "metadata": {"name": own}}
        await self.api.post(f"{ROOT}/namespaces/{space}/circuitbreakers", {**body, "spec": spec})

    @property
    def _steady(self) -> set[str]:
        found: set[str] = self.__dict__.setdefault("_steady_set", set(self.steady_names))
        return found

    async def idle(self, operator: OperatorProcess) -> None:
        """Nothing happens."""
        pid = operator.process.pid
        await self.caught_up(operator)
        await asyncio.sleep(5.0)
        before, writes, began = cpu_seconds(pid), await self.api.writes(), time.monotonic()
        await asyncio.sleep(self.asked.idle_seconds)
        share = (cpu_seconds(pid) - before) / (time.monotonic() - began)
        wrote = await self.difference(writes)
        say("idle: processor, one core", f"{share:.2%}   writes meanwhile: {wrote}")
        say("resident memory now, and the most so far", memory(pid))

    async def scrape(self, operator: OperatorProcess) -> None:
        """Ten scrapes, and how long another request waits meanwhile."""
        done = asyncio.Event()
        waits: list[float] = []

        async def knock() -> None:
            while not done.is_set():
                began = time.monotonic()
                await asyncio.to_thread(operator.get, "/healthz")
                waits.append(time.monotonic() - began)
                await asyncio.sleep(0.01)

        knocking = asyncio.create_task(knock())
        took, size = [], 0
        for _ in range(10):
            began = time.monotonic()
            size = len((await asyncio.to_thread(operator.get, "/metrics"))[1])
            took.append(time.monotonic() - began)
        done.set()
        await knocking
        say(f"scrape of {size / 1e6:.1f} MB", percentiles(took))
        say("  /healthz meanwhile", percentiles(waits))

    async def caught_up(self, operator: OperatorProcess) -> None:
        """Once around all breakers, and nothing left to reconcile."""
        await self.until(lambda: "[+] synced" in operator.get("/readyz")[1], "a sweep")
        depth = 'circuitbreaker_operator_workqueue_depth{queue="reconcile"}'
        await self.until(lambda: not operator.metric(depth), "its queue", 2.0)  # a scrape of all is no small thing

    async def restart(self, label: str) -> None:
        """A new process: in force again, and what it writes of what has not changed."""
        writes = await self.api.writes()
        began = time.monotonic()
        async with self.operator(self.asked.status_qps) as operator:
            await self.caught_up(operator)
            caught_up, spent = time.monotonic() - began, cpu_seconds(operator.process.pid)
            await asyncio.sleep(5.0)
            wrote = await self.difference(writes)
            say(
                f"restart, {label}: start -> caught up",
                f"{caught_up:.1f} s, {spent:.1f} s of processor time   writes: {wrote}",
            )
            say("  resident memory now, and the most so far", memory(operator.process.pid))

    async def steady(self, operator: OperatorProcess) -> None:
        """50 transitions a second: openings, their ends by the operator's clock, probes that close them."""
        seconds = self.asked.steady_minutes * 60
        pace = 3 / 50
        writes, heard, before = await self.api.writes(), len(self.seen.heard), cpu_seconds(operator.process.pid)
        self.seen.lags.clear()
        began = time.monotonic()
        recovering: set[asyncio.Task[None]] = set()
        number = 0
        while time.monotonic() - began < seconds:
            task = asyncio.create_task(self._cycle(self.steady_names[number % len(self.steady_names)]))
            recovering.add(task)
            task.add_done_callback(recovering.discard)
            number += 1
            await asyncio.sleep(max(0.0, began + number * pace - time.monotonic()))
        await asyncio.gather(*recovering)
        took = time.monotonic() - began
        await self.until(lambda: not self.seen.behind, "the statuses")
        transitions = len(self.seen.heard) - heard
        share = (cpu_seconds(operator.process.pid) - before) / took
        say(
            f"{transitions / took:.0f} transitions/s for {took:.0f} s: transition -> status at a watcher",
            percentiles(self.seen.lags),
        )
        say(
            "  writes, processor, memory",
            f"{await self.difference(writes)}   {share:.1%}   {memory(operator.process.pid)}",
        )

    async def _cycle(self, name: str) -> None:
        root = KEYS.breaker(BreakerKey.parse(name))
        if await self._open(name) is not State.OPEN:
            return
        deadline = time.monotonic() + 60
        while self.seen_state(name) is not State.HALF_OPEN and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        lease = os.urandom(8).hex()
        permit = await self._call(protocol.acquire(root, client="bench", lease=lease))
        order = permit.standing.order[:2]
        outcome = Outcome.SUCCESS
        await self._call(protocol.settle(root, client="bench", lease=lease, order=order, outcome=outcome))

    def seen_state(self, name: str) -> State | None:
        return self._states.get(name)

    async def _open(self, name: str) -> State:
        root = KEYS.breaker(BreakerKey.parse(name))
        order = (await self._call(protocol.observe(root))).order[:2]
        seq = time.monotonic_ns()
        standing = await self._call(protocol.report(root, client="bench", seq=seq, order=order, batch=[("F", 1)]))
        return State(standing.state)

    async def _call(self, call: Any) -> Any:
        return call.read(await self.redis.execute_command(*call.command()))

    async def storm(self, operator: OperatorProcess) -> None:
        """Thousands open at once: nothing is lost, and the API server is asked no more often than allowed."""
        names = self.storm_names[: self.asked.storm]
        roots = [KEYS.breaker(BreakerKey.parse(name)) for name in names]
        orders = [(await self._call(protocol.observe(root))).order[:2] for root in roots]
        writes = await self.api.writes()
        self.seen.lags.clear()
        self.seen.per_second.clear()
        began = time.monotonic()
        for first in range(0, len(roots), 500):
            pipeline = self.redis.pipeline(transaction=False)
            for root, order in zip(roots[first : first + 500], orders[first : first + 500], strict=True):
                call = protocol.report(root, client="storm", seq=time.monotonic_ns(), order=order, batch=[("F", 1)])
                pipeline.execute_command(*call.command())
            await pipeline.execute()
        opened = time.monotonic() - began
        wanted = set(names)
        await self.until(
            lambda: all(self.seen.state.get(name) == "Open" for name in wanted), "every status to say Open"
        )
        took = time.monotonic() - began
        allowed = max(0.0, len(names) - 2 * self.asked.status_qps) / self.asked.status_qps
        busiest = max(self.seen.per_second.values(), default=0)
        say(
            f"storm: {len(names):,} opened within {opened:.2f} s -> all in their statuses",
            f"{took:.1f} s (the rate of {self.asked.status_qps}/s allows {allowed:.1f} s)",
        )
        say("  most statuses within a second; writes", f"{busiest}   {await self.difference(writes)}")
        say("  resident memory now, and the most so far", memory(operator.process.pid))

    async def told(self) -> None:
        """Every transition that was heard, against the Events there are."""
        names: Counter[str] = Counter()
        skipped = 0
        async for item in self.api.items("/api/v1/events", metadata_only=True):
            name = item["metadata"]["name"]
            names[name] += 1
            skipped += name.endswith(".skipped")
        missing = []
        for service, incarnation, generation in self.seen.heard:
            own = service.split("/")[1]
            name = f"{own}.{self.seen.uids[service][:8]}.{base36(incarnation)}.{generation}"
            if name not in names:
                missing.append(name)
        say(
            "transitions heard; without an Event; Events twice; TransitionsSkipped",
            f"{len(self.seen.heard):,}   {len(missing)}   {sum(each > 1 for each in names.values())}   {skipped}",
        )

    async def difference(self, before: Writes) -> str:
        wrote = (await self.api.writes()).since(before)
        return f"{wrote.statuses:,} statuses, {wrote.events:,} Events"

    async def listen(self) -> None:
        """Hears every transition, until cancelled."""
        self._states: dict[str, State] = {}
        async with self.redis.pubsub() as pubsub:
            await pubsub.subscribe(KEYS.updates)
            async for message in pubsub.listen():
                if message["type"] == "message":
                    self.seen.hear(message["data"], time.monotonic())
                    said = json.loads(message["data"])
                    if said["state"]:
                        self._states[said["service"]] = State(said["state"])


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def processor_seconds() -> dict[str, float]:
    """What this process and those it started have used, by name."""
    used: Counter[str] = Counter({"this": time.process_time()})
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    for pid in (int(each) for file in children for each in file.read_text().split()):
        used[Path(f"/proc/{pid}/comm").read_text().strip()] += cpu_seconds(pid)
    return dict(used)


def told_seconds(before: dict[str, float], after: dict[str, float]) -> str:
    return "   ".join(f"{name} {seconds - before.get(name, 0.0):.1f}" for name, seconds in after.items())


def memory(pid: int) -> str:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    now, most = (int(lines[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return f"{now:.0f} MB   {most:.0f} MB"


async def run(asked: argparse.Namespace, plane: ControlPlane, world: World, url: str) -> None:
    """All parts, one after the other."""
    client = redis.asyncio.Redis.from_url(url)
    async with api_of(plane.kubeconfig) as api, client:
        scale = Scale(asked, world, api, client)
        helpers = scale.helpers = [
            asyncio.create_task(api.watch(scale.seen.saw)),
            asyncio.create_task(scale.listen()),
        ]
        try:
            async with scale.operator(asked.apply_qps):
                await scale.apply()
            async with scale.operator(asked.status_qps) as operator:
                await scale.idle(operator)
                await scale.scrape(operator)
            await scale.restart("nothing has changed")
            async with scale.operator(asked.status_qps) as operator:
                await scale.steady(operator)
                await scale.storm(operator)
                await scale.scrape(operator)
            await scale.told()
            await scale.restart("half of them Open")
        finally:
            for helper in helpers:
                helper.cancel()
                with suppress(asyncio.CancelledError):
                    await helper


def main() -> None:
    """All figures, with the machine's load before and after."""
    asked = arguments()
    server, binaries = find_redis_server(), control_plane_binaries()
    print(f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.2f}; all of it shares them")
    with ControlPlane(binaries) as plane, RedisServer(server) as store, tempfile.TemporaryDirectory() as folder:
        plane.apply(CRD)
        world = World(plane, store, Path(folder))
        try:
            asyncio.run(run(asked, plane, world, store.url))
        finally:
            world.close()
    print(f"load after {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
