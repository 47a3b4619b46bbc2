"""What the page asks of its operator: no more than a browser allows, and once at a time; and what it says of that."""

import asyncio
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from circuitbreaker_contract.state import State
from circuitbreaker_operator import live as module
from tests.page.conftest import Opens, Stand

TABS = 8  # a browser has six connections for all tabs of one host
SEEN = """of => {
    const box = document.querySelector(of);
    window.seen = [];
    new MutationObserver(() => { if (seen.at(-1) !== box.textContent) seen.push(box.textContent); })
        .observe(box, { subtree: true, childList: true, characterData: true });
}"""


def show(page: Page, visible: bool) -> None:
    """As another tab in front of it does; all tabs of a headless browser are visible."""
    page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        not visible,
    )


def until(is_so: Callable[[], bool], page: Page) -> None:
    """The page goes on meanwhile."""
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)


def test_more_tabs_than_a_browser_has_connections(stand: Stand, opens: Opens) -> None:
    """Those that nobody sees leave theirs, and go on where they were when somebody looks again."""
    stand.see("one", state=State.OPEN)
    first = opens(stand)
    expect(first).to_have_title("(1 Open) Circuit breakers")
    tabs = [first]
    for _ in range(TABS - 1):
        show(tabs[-1], visible=False)
        tab = first.context.new_page()
        tab.goto(f"http://127.0.0.1:{stand.port}/#/shop/one")
        tab.locator('[data-part="history"]').wait_for()
        tabs.append(tab)
    until(lambda: stand.viewers == 1, first)
    expect(first).to_have_title("Circuit breakers")  # without a count that may be wrong by now
    stand.see("two", state=State.OPEN)
    listed: list[str] = []
    first.on("request", lambda request: listed.append(request.url) if request.url.endswith("/api/breakers") else None)
    show(first, visible=True)
    expect(first.locator("#rows tr")).to_have_count(2)
    expect(first.locator("#link")).to_have_text("Live")
    expect(first).to_have_title("(2 Open) Circuit breakers")
    assert listed == []


def test_a_tab_in_the_background_waits(stand: Stand, opens: Opens) -> None:
    """Opened there it has no stream until somebody looks."""
    stand.see("one")
    page = opens(stand, "/health", wait=False)
    page.add_init_script("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    page.goto(f"http://127.0.0.1:{stand.port}/")
    expect(page.locator("#heads button").first).to_be_attached()
    assert stand.viewers == 0
    show(page, visible=True)
    expect(page.locator("#rows .c-state")).to_have_text("Closed")


def test_what_is_not_answered_is_asked_once_and_given_up(stand: Stand, opens: Opens) -> None:
    """The breakers on the screen are looked at every 2 s; here an answer is waited for for 3 s."""
    stand.see("one")
    page = opens(stand, "/health", wait=False)
    page.add_init_script("AbortSignal.timeout = AbortSignal.timeout.bind(AbortSignal, 3000)")
    asked: list[Route] = []
    failed = []
    page.route("**/api/look*", lambda route: asked.append(route))  # noqa: PLW0108 # the driver wants a function

    page.on("requestfailed", lambda request: failed.append(request.url))
    page.goto(f"http://127.0.0.1:{stand.port}/")
    until(lambda: len(failed) == 1, page)
    assert len(asked) == 1
    until(lambda: len(asked) == 2, page)


def test_a_connection_that_broke_is_called_so(stand: Stand, opens: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    """And only an operator that has no room is said to have none."""
    page = opens(stand)
    page.evaluate(SEEN, "#banners")
    stand.do(stand.stage.live.close)
    until(lambda: stand.viewers == 0, page)
    expect(page.locator("#link")).to_have_text("Live")
    said = " ".join(page.evaluate("seen"))
    assert "The connection broke." in said
    assert "As many pages" not in said
    monkeypatch.setattr(module, "MOST_VIEWERS", 0)
    stand.do(stand.stage.live.close)
    expect(page.locator("#banners")).to_contain_text("As many pages are open as this operator serves.")


def test_a_list_that_is_asked_for_twice(stand: Stand, opens: Opens) -> None:
    """The operator's role changed while the list was on its way: nothing is lost, and the connection least of all."""
    stand.see("one")
    page = opens(stand)
    page.evaluate(SEEN, "#link-text")
    go, listing = asyncio.Event(), stand.stage.live.listing

    async def slow() -> bytes:
        await go.wait()
        return await listing()

    stand.stage.live.listing = slow
    listed = []
    page.on("request", lambda request: listed.append(request.url) if request.url.endswith("/api/breakers") else None)
    for number, role in enumerate(("starting", "leader")):
        stand.condition["role"] = role
        until(lambda number=number: len(listed) > number, page)
    stand.see("two")
    answered = []
    page.on("response", lambda answer: answered.append(answer.url) if answer.url.endswith("/api/breakers") else None)
    stand.do(go.set)
    until(lambda: len(answered) == 2, page)
    expect(page.locator("#rows tr")).to_have_count(2)
    stand.see("three")
    expect(page.locator("#rows tr")).to_have_count(3)
    assert page.evaluate("seen") == []
