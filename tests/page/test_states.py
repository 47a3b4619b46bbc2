"""What the page says when there is nothing to show, or nobody to show it."""

import json
import re

from playwright.sync_api import Page, expect

from tests.cluster.world import World
from tests.page.conftest import Opens


def banner(page: Page):
    return page.locator("#banners .banner")


def test_without_breakers_it_says_how_to_make_one(world: World, opens: Opens) -> None:
    with world.operator(NAMESPACES=world.namespace) as operator:
        page = opens(operator.wait_ready())
        expect(page.get_by_role("heading", name="No breakers yet")).to_be_visible()
        expect(page.locator("#nothing pre")).to_contain_text("kind: CircuitBreaker")
        world.create("first")
        expect(page.locator("#rows tr")).to_have_count(1)
        expect(page.get_by_role("heading", name="No breakers yet")).to_be_hidden()


def open_one(world: World, name: str) -> None:
    """A breaker whose status says that it is Open."""
    world.create(name, failureThreshold=1, recoveryTimeout="1h")
    world.until_ready(name)
    world.fleet(name).open()
    world.until_state(name, "Open")


def test_an_outage_of_redis_is_said_and_what_was_seen_stays(world: World, opens: Opens) -> None:
    """The list and the page of one breaker show what was last seen, marked as old; the end of the outage clears it."""
    with world.operator(NAMESPACES=world.namespace, REDIS_TIMEOUT="300ms") as operator:
        operator.wait_ready()
        open_one(world, "kept")
        page = opens(operator)
        expect(page.locator("#rows .c-state")).to_have_text("Open")
        world.server.process.pause()
        try:
            expect(banner(page)).to_contain_text("Redis does not answer.", timeout=30_000)
            expect(banner(page)).to_contain_text(re.compile(r"What you see is [1-9]\d*s old"))
            expect(page.locator("#rows .c-state")).to_have_text("Open")
            expect(page.locator("body")).to_have_class("stale")
            page.get_by_role("link", name="kept").click()
            expect(page.locator('[data-part="why"]')).to_contain_text("this is what was last seen of it")
        finally:
            world.server.process.resume()
        expect(banner(page)).to_have_count(0, timeout=30_000)
        expect(page.locator('[data-part="why"]')).not_to_contain_text("last seen")


def test_a_history_that_was_not_known_comes_after_the_outage(world: World, opens: Opens) -> None:
    """The page of a breaker that nobody had looked at was opened meanwhile; nothing happened to it since."""
    with world.operator(NAMESPACES=world.namespace, REDIS_TIMEOUT="300ms") as operator:
        operator.wait_ready()
        open_one(world, "unread")
        page = opens(operator, "/#/?q=nobody-is-called-so")
        expect(page.get_by_role("heading", name="No breaker matches")).to_be_visible()
        world.server.process.pause()
        try:
            expect(banner(page)).to_contain_text("Redis does not answer.", timeout=30_000)
            page.goto(f"http://127.0.0.1:{operator.port}/#/{world.namespace}/unread")
            expect(page.locator('[data-part="history"]')).to_contain_text("Not known while Redis does not answer.")
        finally:
            world.server.process.resume()
        expect(page.locator(".history tbody tr")).to_have_count(2, timeout=30_000)
        world.server.process.pause()
        try:
            expect(page.locator('[data-part="why"]')).to_contain_text(
                "this is what was last seen of it", timeout=30_000
            )
            expect(page.locator(".history tbody tr")).to_have_count(2)
        finally:
            world.server.process.resume()


def test_an_operator_that_goes_is_noticed_and_its_return_too(world: World, opens: Opens) -> None:
    """Nothing on the screen pretends to be live; the page goes on by itself with what happened meanwhile."""
    world.create("watched", failureThreshold=1, recoveryTimeout="1h")
    with world.operator(NAMESPACES=world.namespace) as operator:
        operator.wait_ready()
        world.until_ready("watched")
        page = opens(operator)
        expect(page.locator("#rows .c-state")).to_have_text("Closed")
    expect(page.locator("#link")).to_have_text("Not live")
    expect(banner(page)).to_contain_text("No live updates. The operator does not answer.")
    world.fleet("watched").open()
    with world.operator(NAMESPACES=world.namespace, HTTP_PORT=str(operator.port)) as again:
        again.port = operator.port
        again.wait_ready()
        expect(page.locator("#link")).to_have_text("Live", timeout=30_000)
        expect(page.locator("#rows .c-state")).to_have_text("Open")
        expect(banner(page)).to_have_count(0)


def test_an_operator_that_hangs_is_noticed(world: World, opens: Opens) -> None:
    """Its connection stays, and nothing comes over it."""
    with world.operator(NAMESPACES=world.namespace) as operator:
        page = opens(operator.wait_ready())
        operator.process.pause()
        try:
            expect(page.locator("#link")).to_have_text("Not live", timeout=30_000)
        finally:
            operator.process.resume()
        expect(page.locator("#link")).to_have_text("Live", timeout=30_000)


def test_a_standby_says_who_leads(world: World, opens: Opens) -> None:
    """It shows no empty list, and goes on by itself when it takes over."""
    lease = {"LEADER_ELECTION": "true", "LEASE_NAMESPACE": world.namespace, "NAMESPACES": world.namespace}
    lease |= {"LEASE_DURATION": "3s", "LEASE_RENEW_DEADLINE": "2s", "LEASE_RETRY": "500ms"}
    world.create("shared")
    with world.operator(**lease) as leader:
        leader.wait_ready()
        with world.operator(**lease) as standby:
            standby.wait_ready()
            assert json.loads(standby.get("/health")[1])["role"] == "standby"
            page = opens(standby, wait=False)
            expect(page.locator("#link")).to_have_text("Standby")
            expect(page.get_by_role("heading", name="This replica stands by")).to_be_visible()
            expect(page.locator("#nothing pre")).to_contain_text(f"kubectl -n {world.namespace} port-forward pod/")
            leader.process.stop(6.0)
            expect(page.locator("#rows tr")).to_have_count(1, timeout=30_000)
            expect(page.locator("#link")).to_have_text("Live")
