"""What people see at `/`, in a real browser: content, changes as they happen, search, keys, hostile text, axe."""

import re
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from circuitbreaker_contract.keys import BreakerKey
from tests.cluster.world import API, PLURAL, OperatorProcess, World
from tests.page.conftest import Opens

Stage = tuple[World, OperatorProcess]
MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def row(page: Page, world: World, name: str):
    return page.locator(f'#rows tr[data-key="{world.namespace}/{name}"]')


def cell(page: Page, world: World, name: str, column: str):
    return row(page, world, name).locator(f".c-{column}")


def test_the_list_tells_of_every_breaker(stage: Stage, opens: Opens) -> None:
    """State, reason, rate, refusals, time to the next probe, the last hour; and counts that are newer than a status."""
    world, operator = stage
    world.create("content-a", failureThreshold=3, recoveryTimeout="1h", minimumCalls=4)
    world.create("content-b")
    world.until_ready("content-a", "content-b")
    fleet = world.fleet("content-a")
    fleet.report(("S", 5))
    fleet.open()
    page = opens(operator)
    expect(cell(page, world, "content-a", "state")).to_have_text("Open")
    expect(cell(page, world, "content-a", "reason")).to_have_text("ConsecutiveFailures")
    expect(cell(page, world, "content-a", "rate")).to_have_text("37.5 %")
    expect(cell(page, world, "content-a", "retry")).to_have_text(re.compile(r"59m\d+s"))
    expect(cell(page, world, "content-a", "past").get_by_role("img")).to_have_attribute(
        "aria-label", re.compile("in the last hour Open once")
    )
    expect(cell(page, world, "content-b", "state")).to_have_text("Closed")
    expect(cell(page, world, "content-b", "retry")).to_have_text("")
    fleet.report(("N", 7))
    expect(cell(page, world, "content-a", "refused")).to_have_text("7")


def test_a_transition_shows_at_once(stage: Stage, opens: Opens) -> None:
    """Without a reload, within a second where the machine is not busy; and it is said to screen readers."""
    world, operator = stage
    world.create("live", failureThreshold=1, recoveryTimeout="2s", successThreshold=1)
    world.until_ready("live")
    page = opens(operator)
    state = cell(page, world, "live", "state")
    expect(state).to_have_text("Closed")
    page.evaluate(
        """key => new MutationObserver(() => {
            const cell = document.querySelector(`#rows tr[data-key="${key}"] .c-state b`);
            if (cell?.textContent === "Open") window.openedAt ??= Date.now();
        }).observe(document.getElementById("rows"), { subtree: true, childList: true, characterData: true })""",
        f"{world.namespace}/live",
    )
    began = time.time()
    world.fleet("live").open()
    expect(state).to_have_text("Open")
    took = page.evaluate("window.openedAt") / 1000 - began
    print(f"transition in Redis -> in the page: {took * 1000:.0f} ms")  # noqa: T201 # with -s
    assert took < 5
    expect(page.locator("#said")).to_have_text(f"{world.namespace}/live is Open")
    expect(state).to_have_text("HalfOpen")
    world.fleet("live").recover()
    expect(state).to_have_text("Closed")
    world.create("live-made")
    expect(cell(page, world, "live-made", "state")).to_have_text("Closed")
    world.delete("live-made")
    expect(row(page, world, "live-made")).to_have_count(0)


def test_search_and_filters_narrow_the_list(stage: Stage, opens: Opens) -> None:
    """By words and by states; the address keeps them, and what matches nothing says so and goes back."""
    world, operator = stage
    for name in ("find-one", "find-two", "find-three"):
        world.create(name, failureThreshold=1, recoveryTimeout="1h")
    world.until_ready("find-one", "find-two", "find-three")
    world.fleet("find-two").open()
    page = opens(operator)
    page.get_by_role("searchbox").fill("find- e")
    expect(page.locator("#rows tr")).to_have_count(3)
    page.get_by_role("group", name="Show only these states").get_by_role(
        "button", name="Open", exact=False
    ).first.click()
    expect(page.locator("#rows tr")).to_have_count(1)
    expect(cell(page, world, "find-two", "state")).to_have_text("Open")
    page.reload()
    expect(page.locator("#rows tr")).to_have_count(1)
    expect(page.get_by_role("searchbox")).to_have_value("find- e")
    page.get_by_role("searchbox").fill("nobody has this name")
    page.get_by_role("button", name="Clear the filters").click()
    expect(page.locator("#rows tr").nth(2)).to_be_visible()
    page.get_by_role("button", name="Name").click()
    expect(page.get_by_role("columnheader", name="Name")).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("button", name="Name").click()
    names = page.locator("#rows th a").all_inner_texts()
    assert names == sorted(names, reverse=True)


def test_all_of_it_can_be_done_by_keys(stage: Stage, opens: Opens) -> None:
    """`/` searches, arrows go along, Enter opens, Escape comes back to where one was."""
    world, operator = stage
    for name in ("keys-a", "keys-b"):
        world.create(name)
    world.until_ready("keys-a", "keys-b")
    page = opens(operator)
    page.keyboard.press("/")
    page.keyboard.type("keys-")
    expect(page.locator("#rows tr")).to_have_count(2)
    page.keyboard.press("ArrowDown")
    expect(row(page, world, "keys-a").get_by_role("link")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(row(page, world, "keys-b").get_by_role("link")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="keys-b")).to_be_visible()
    page.keyboard.press("Escape")
    expect(row(page, world, "keys-b").get_by_role("link")).to_be_focused()
    assert page.get_by_role("searchbox").input_value() == "keys-"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("searchbox")).to_be_focused()


def test_one_breaker_has_a_page_that_lives(stage: Stage, opens: Opens) -> None:
    """Why, what comes next, history, policy in force, counters; and a breaker that is not there says so."""
    world, operator = stage
    world.create("one", failureThreshold=2, recoveryTimeout="1h", backoff={"factor": 2, "max": "2h"})
    world.until_ready("one")
    page = opens(operator, f"/#/{world.namespace}/one")
    why = page.locator('[data-part="why"]')
    expect(why).to_contain_text("2 consecutive failures open it (failureThreshold); 0 now")
    world.fleet("one").open()
    expect(why).to_contain_text("Open: 2 consecutive failures reached failureThreshold 2")
    expect(why).to_contain_text(re.compile(r"probes are permitted in \d+m\d+s, at .*: then it is HalfOpen"))
    history = page.locator(".history tbody tr")
    expect(history).to_have_count(2)
    expect(history.first).to_contain_text("ConsecutiveFailures")
    facts = page.locator('[data-part="facts"]')
    for text in ("backoff.factor2", "failureThreshold2", "failures2", "trips1", "recoveryTimeout1h"):
        expect(facts).to_contain_text(text)
    expect(page.locator('[data-part="conditions"]')).to_contain_text("Healthy False")
    page.goto(f"http://127.0.0.1:{operator.port}/#/{world.namespace}/nobody")
    expect(page.get_by_role("heading", name="There is no breaker")).to_be_visible()
    page.get_by_role("link", name="All breakers").click()
    expect(row(page, world, "one")).to_be_visible()


def test_hostile_text_stays_text(stage: Stage, opens: Opens) -> None:
    """Markup in an override's reason, in Redis' history and in a forged status is shown as it is, and does nothing."""
    world, operator = stage
    world.create("hostile", override={"state": "Open", "reason": MARKUP})
    world.until_ready("hostile")
    root = world.keys.breaker(BreakerKey(world.namespace, "hostile"))
    forged = {
        "previous": "Closed",
        "state": "Open",
        "reason": "Forced",
        "forced": "Open",
        "note": MARKUP + "\u202e\x1b[31m",
    }
    numbers = ("incarnation", "generation", "attempt", "consecutiveFailures", "openUntil", "windowCalls")
    last = world.redis.xrevrange(f"{root}:history", count=1)[0][1]
    forged |= {name: last.get(name, "0") for name in (*numbers, "windowFailures", "windowSlow", "at")}
    world.redis.xadd(f"{root}:history", forged)
    condition = {"type": "Ready", "status": "False", "reason": "x", "message": MARKUP, "lastTransitionTime": None}
    operator.process.pause()  # it would put this right before anybody sees it
    try:
        body = {"status": {"conditions": [condition | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]}}
        world.objects.patch_namespaced_custom_object_status(*API, world.namespace, PLURAL, "hostile", body)
    finally:
        operator.process.resume()
    page = opens(operator)
    expect(cell(page, world, "hostile", "state")).to_contain_text("held")
    page.goto(f"http://127.0.0.1:{operator.port}/#/{world.namespace}/hostile")
    expect(page.locator('[data-part="why"] .why')).to_have_text(f"Open: held Open: {MARKUP}  [31m")
    expect(page.locator(".history")).to_contain_text(MARKUP)
    assert page.locator("main img, main script").count() == 0
    assert "\x1b" not in page.locator("main").inner_text()
    page.goto(f"http://127.0.0.1:{operator.port}/?q={MARKUP}#/?q={MARKUP}&state={MARKUP}&sort=__proto__")
    expect(page.get_by_role("button", name="Clear the filters")).to_be_visible()
    page.goto(f"http://127.0.0.1:{operator.port}/#/{MARKUP}/../x")
    expect(page.locator("#one")).to_contain_text("There is no breaker")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(stage: Stage, opens: Opens, scheme: str) -> None:
    """The rules of axe-core, WCAG 2.2 AA and best practices, on the list, on one breaker and on an empty search."""
    world, operator = stage
    name = f"axe-{scheme}"
    world.create(name, failureThreshold=1, recoveryTimeout="1h")
    world.until_ready(name)
    world.fleet(name).open()
    page = opens(operator, color_scheme=scheme)
    expect(cell(page, world, name, "state")).to_have_text("Open")
    found = []
    for place in ("#/", f"#/{world.namespace}/{name}", "#/?q=nothing+is+called+so"):
        page.goto(f"http://127.0.0.1:{operator.port}/{place}")
        expect(page.locator(".history" if name in place else "#rows tr, #nothing h2").first).to_be_visible()
        report = Axe().run(page).response
        found += [(place, each["id"], [node["html"] for node in each["nodes"]]) for each in report["violations"]]
    assert found == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(16, 21, 26)"}[scheme]
