"""`make bench-page`: the operator's page with ten thousand breakers, in a real Chromium. Prints; asserts nothing."""

import argparse
import asyncio
import os
import tempfile
import threading
import time
import urllib.request
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

from circuitbreaker_contract import protocol
from circuitbreaker_contract.keys import BreakerKey, Keys
from circuitbreaker_local.binaries import control_plane_binaries
from circuitbreaker_local.chromium_binary import find_chromium
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.redis_server import RedisServer, find_redis_server
from tests.bench.api import ROOT, api_of
from tests.bench.scale import memory, percentiles, say
from tests.cluster.conftest import install_crd
from tests.cluster.world import OperatorProcess, World

NAMESPACES = 20
STORM = 1_000
SCROLL = """async () => {
    const times = [];
    let before = performance.now();
    const whole = document.documentElement.scrollHeight;
    for (let step = 0; step < 240; step += 1) {
        scrollTo(0, whole * (step < 120 ? step / 120 : Math.random()));
        await new Promise(requestAnimationFrame);
        const now = performance.now();
        times.push((now - before) / 1000);
        before = now;
    }
    return times;
}"""


def in_a_thread(work: Coroutine[Any, Any, None]) -> None:
    """The driver of the browser has a loop in ours."""
    thread = threading.Thread(target=asyncio.run, args=(work,))
    thread.start()
    thread.join()


async def make(world: World, names: list[str]) -> None:
    async with api_of(world.plane.kubeconfig) as api:
        for space in sorted({name.split("/")[0] for name in names}):
            await api.post("/api/v1/namespaces", {"metadata": {"name": space}})
        kind = {"apiVersion": "circuitbreaker.dev/v1alpha1", "kind": "CircuitBreaker"}
        kind |= {"spec": {"failureThreshold": 1, "recoveryTimeout": "1h"}}

        async def one(name: str) -> None:
            space, own = name.split("/")
            await api.post(f"{ROOT}/namespaces/{space}/circuitbreakers", {**kind, "metadata": {"name": own}})

        await asyncio.gather(*map(one, names))


def storm(world: World, names: list[str]) -> None:
    roots = [Keys().breaker(BreakerKey.parse(name)) for name in names]
    orders = [world.fleet(name.split("/")[1], name.split("/")[0]).observe().order[:2] for name in names]
    pipeline = world.redis.pipeline(transaction=False)
    for root, order in zip(roots, orders, strict=True):
        call = protocol.report(root, client="storm", seq=time.monotonic_ns(), order=order, batch=[("F", 1)])
        pipeline.execute_command(*call.command())
    pipeline.execute()


def look(page: Page, world: World, operator: OperatorProcess, names: list[str]) -> None:
    began = time.monotonic()
    page.goto(f"http://127.0.0.1:{operator.port}/")
    expect(page.locator("#count")).to_have_text(f"{len(names):,} breakers", timeout=60_000)
    say("open -> the list is there", f"{time.monotonic() - began:.2f} s")
    say("  rows in the document; heap of the page", f"{page.locator('#rows tr').count()}; {heap(page)}")
    say("  scrolling, a frame", percentiles(page.evaluate(SCROLL)))
    began = time.monotonic()
    page.get_by_role("searchbox").fill("breaker-77")
    expect(page.locator("#count")).to_have_text(
        f"{sum('breaker-77' in name for name in names):,} of {len(names):,} breakers"
    )
    say("  search", f"{(time.monotonic() - began) * 1000:.0f} ms")
    page.get_by_role("searchbox").fill("")
    some = names[:STORM]
    storm(world, some)
    began = time.monotonic()
    expect(page.locator("#states")).to_contain_text(f"Open {len(some):,}", timeout=120_000)
    say(f"  {len(some):,} open at once -> all of them in the page", f"{time.monotonic() - began:.2f} s")
    say("  scrolling while statuses are written, a frame", percentiles(page.evaluate(SCROLL)))
    say("  heap of the page", heap(page))


def heap(page: Page) -> str:
    return f"{page.evaluate('performance.memory.usedJSHeapSize') / 1e6:.0f} MB"


def fetch(operator: OperatorProcess) -> None:
    """Ten lists one after the other, and how long another request waits meanwhile."""
    waits: list[float] = []
    done = threading.Event()

    def knock() -> None:
        while not done.is_set():
            began = time.monotonic()
            operator.get("/healthz")
            waits.append(time.monotonic() - began)
            time.sleep(0.01)

    knocking = threading.Thread(target=knock)
    knocking.start()
    took, size = [], 0
    request = urllib.request.Request(f"http://127.0.0.1:{operator.port}/api/breakers")
    request.add_header("Accept-Encoding", "gzip")
    for _ in range(10):
        began = time.monotonic()
        with urllib.request.urlopen(request, timeout=30) as answer:
            size = len(answer.read())
        took.append(time.monotonic() - began)
    done.set()
    knocking.join()
    say(f"the list, {size / 1e3:.0f} kB over the wire", percentiles(took))
    say("  /healthz meanwhile", percentiles(waits))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.page", description=__doc__)
    parser.add_argument("--breakers", type=int, default=10_000, metavar="N")
    number = parser.parse_args().breakers
    names = [f"page-{each % NAMESPACES}/breaker-{each}" for each in range(number)]
    with (
        ControlPlane(control_plane_binaries()) as plane,
        RedisServer(find_redis_server()) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        install_crd(plane)
        world = World(plane, server, Path(folder))
        with world.operator(STATUS_QPS="400", SWEEP_INTERVAL="60s", LEADER_ELECTION="false") as operator:
            operator.wait_ready()
            in_a_thread(make(world, names))
            wanted = float(number)
            while operator.metric('circuitbreaker_operator_breakers{state="Closed"}') != wanted:
                time.sleep(0.5)
            say(f"{number:,} breakers: the operator's memory before anybody looks", memory(operator.process.pid))
            fetch(operator)
            with sync_playwright() as driver:
                sandbox = [] if os.getuid() else ["--no-sandbox"]
                arguments = [*sandbox, "--enable-precise-memory-info"]
                browser = driver.chromium.launch(executable_path=find_chromium(), args=arguments)
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                look(page, world, operator, names)
                browser.close()
            say("the operator's memory now, and the most so far", memory(operator.process.pid))
        world.close()


if __name__ == "__main__":
    main()
