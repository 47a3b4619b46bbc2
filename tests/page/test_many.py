"""A thousand breakers: only what can be seen is in the document, and all of it can be reached."""

import asyncio
import threading

from playwright.sync_api import expect

from tests.bench.api import ROOT, api_of
from tests.cluster.world import World
from tests.page.conftest import Opens

MANY = 1_000


def make(world: World) -> None:
    """In a thread of its own, since the driver of the browser has a loop in ours."""

    async def work() -> None:
        async with api_of(world.plane.kubeconfig) as api:
            kind: dict[str, object] = {"apiVersion": "circuitbreaker.dev/v1alpha1", "kind": "CircuitBreaker"}
            names = [
                {"metadata": {"name": f"many-{number:04}"}, "spec": {"failureThreshold": 1}} for number in range(MANY)
            ]
            path = f"{ROOT}/namespaces/{world.namespace}/circuitbreakers"
            await asyncio.gather(*(api.post(path, kind | name) for name in names))

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    thread.join()


def test_many_breakers_are_one_short_document(world: World, opens: Opens) -> None:
    with world.operator(NAMESPACES=world.namespace, STATUS_QPS="2000") as operator:
        operator.wait_ready()
        make(world)
        page = opens(operator)
        expect(page.locator("#count")).to_have_text("1,000 breakers", timeout=30_000)
        expect(page.locator("#states")).to_contain_text("Closed 1,000", timeout=60_000)
        assert page.locator("#rows tr").count() < 60
        page.keyboard.press("End")
        last = page.locator(f'#rows tr[data-key="{world.namespace}/many-0999"]')
        expect(last).to_be_in_viewport()
        expect(last).to_have_attribute("aria-rowindex", "1001")
        assert page.locator("#rows tr").count() < 60
        assert page.locator("#table").get_attribute("aria-rowcount") == "1001"
        world.fleet("many-0500").open()
        page.keyboard.press("Home")
        expect(page.locator("#rows tr").first).to_contain_text("many-0500")
        page.get_by_role("searchbox").fill("many-077")
        expect(page.locator("#rows tr")).to_have_count(10)
