"""What people who read the page rely on: their place, the order of its parts, and what a screen reader says."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from circuitbreaker_contract.state import State
from tests.page.conftest import Opens, Stand
from tests.unit.breakers import CREATED, OPENED, a_resource

MANY = 300
PARTS = ["title", "why", "hour", "history", "facts", "conditions"]


def parts(page: Page) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('#one > *')].map(each => each.dataset.part)")


@pytest.mark.parametrize("way", ["Escape", "the browser", "the link"])
def test_going_back_leads_to_where_one_was(stand: Stand, opens: Opens, way: str) -> None:
    for number in range(MANY):
        stand.see(f"many-{number:03}")
    page = opens(stand)
    page.evaluate("scrollTo(0, 6000)")
    row = page.locator('#rows tr[data-key="shop/many-140"]')
    row.get_by_role("link").click()
    expect(page.get_by_role("heading", name="many-140")).to_be_visible()
    assert page.evaluate("scrollY") == 0
    if way == "Escape":
        page.keyboard.press("Escape")
    elif way == "the browser":
        page.go_back()
        page.go_forward()
        page.go_back()
    else:
        page.get_by_role("link", name="All breakers").click()
    expect(row.get_by_role("link")).to_be_focused()
    expect(row).to_be_in_viewport()
    assert page.evaluate("scrollY") == 6000


def test_what_is_not_known_any_more_is_not_shown(stand: Stand, opens: Opens) -> None:
    """And what is known again comes in its place, not at the end."""
    stand.do(stand.stage.put, "one")
    page = opens(stand, "/#/shop/one")
    title = page.locator('[data-part="title"] .state')
    expect(title).to_have_text("Unknown")
    stand.see("one", history=(CREATED,))
    expect(title).to_have_text("Closed")
    assert parts(page) == PARTS
    stand.do(stand.stage.book.drop, a_resource(name="one").key)
    expect(title).to_have_text("Unknown")
    assert parts(page) == ["title", "conditions"]


def test_a_screen_reader_hears_of_an_outage_once(stand: Stand, opens: Opens) -> None:
    """Its age, which changes each second, is for those who see it."""
    stand.see("one")
    page = opens(stand)
    page.evaluate(
        """() => {
            window.said = [];
            for (const region of document.querySelectorAll("[role=status], [aria-live]")) {
                new MutationObserver(() => said.push(region.textContent))
                    .observe(region, { subtree: true, childList: true, characterData: true });
            }
        }"""
    )
    stand.condition["redis"] = False
    for age in range(1, 4):
        stand.condition["redisAwaySeconds"] = age
        expect(page.locator("#banners .banner")).to_contain_text(f"What you see is {age}s old.")
    assert page.evaluate("said") == ["Redis does not answer. Services go on with what they know."]
    stand.condition["api"] = False
    expect(page.locator("#banners .banner")).to_have_count(2)
    assert "The API server does not answer." in page.evaluate("said.at(-1)")
    assert [each["id"] for each in Axe().run(page).response["violations"]] == []
    stand.condition |= {"redis": True, "api": True}
    expect(page.locator("#banners .banner")).to_have_count(0)
    assert page.evaluate("[said.length, said.at(-1)]") == [3, "Live"]


def test_the_order_of_numbers_is_the_one_that_is_said(stand: Stand, opens: Opens) -> None:
    """The largest come first, so it is a descending one; the other way round after a second click."""
    for name, failures in (("a", 1), ("b", 3), ("c", 2)):
        stand.see(name, consecutive_failures=failures)
    page = opens(stand, viewport={"width": 1600, "height": 800})
    head = page.get_by_role("columnheader", name="Failures")
    for order, shown in (("descending", ["3", "2", "1"]), ("ascending", ["1", "2", "3"])):
        head.get_by_role("button").click()
        expect(head).to_have_attribute("aria-sort", order)
        assert page.locator("#rows .c-fail").all_inner_texts() == shown


def test_openings_and_times_are_said_in_their_order_too(stand: Stand, opens: Opens) -> None:
    stand.see("calm", since_ms=CREATED.at_ms)
    stand.see("tripped", state=State.OPEN, since_ms=OPENED.at_ms, history=(CREATED, OPENED))
    page = opens(stand, viewport={"width": 1600, "height": 800})
    for title, order, first in (("Last hour", "descending", "tripped"), ("Since", "ascending", "tripped")):
        head = page.get_by_role("columnheader", name=title)
        head.get_by_role("button").click()
        expect(head).to_have_attribute("aria-sort", order)
        expect(page.locator("#rows tr").first).to_contain_text(first)
