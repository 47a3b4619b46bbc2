"""A headless Chromium, and an operator whose page it opens. Tests here are no coroutines: the driver has a loop."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from circuitbreaker_local.chromium_binary import find_chromium
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.redis_server import RedisServer
from tests.cluster.conftest import breaker_crd, world  # noqa: F401 # fixtures
from tests.cluster.world import OperatorProcess, World
from tests.unit.test_page import Stage, served

Opens = Callable[..., Page]


class Stand:
    """A page without an operator behind it, served by a thread, since the driver of the browser has a loop in ours."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.condition: dict[str, Any] = {"role": "leader", "redis": True, "api": True, "kind": True, "synced": True}
        self.condition |= {"redisAwaySeconds": 0, "namespaces": [], "version": "0"}
        self.stage.live._condition = lambda: dict(self.condition)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._served = served(self.stage)

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait(self._served.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._served.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def port(self) -> int:
        return self.stage.web.port

    @property
    def viewers(self) -> int:
        return self.stage.live.viewers

    def do(self, work: Callable[..., object], *given: Any, **named: Any) -> None:
        """In the thread of the page."""

        async def done() -> None:
            work(*given, **named)

        self._wait(done())

    def see(self, name: str, **changed: Any) -> None:
        self.do(self.stage.see, name, **changed)

    def _wait(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=20)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    sandbox = [] if os.getuid() else ["--no-sandbox"]  # Chromium refuses to sandbox itself for root
    with sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=path, args=sandbox)
        yield launched
        launched.close()


@pytest.fixture
def opens(browser: Browser) -> Iterator[Opens]:
    """Opens an operator's page in a window of its own. Whatever the browser complains of fails the test at its end."""
    contexts, complaints = [], []

    def heard(message: ConsoleMessage) -> None:
        # A connection that the test itself broke is said by the browser as well.
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    def opened(operator: OperatorProcess | Stand, path: str = "/", *, wait: bool = True, **options: object) -> Page:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(f"http://127.0.0.1:{operator.port}{path}")
        if wait:
            page.locator("#link[data-is=live]").wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def stand() -> Iterator[Stand]:
    with Stand() as made:
        yield made


@pytest.fixture(scope="module")
def stage(
    control_plane: ControlPlane,
    breaker_crd: str,  # noqa: F811
    redis_server_binary: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[World, OperatorProcess]]:
    """One world with an operator of its namespace alone, for tests that leave both as they are."""
    with RedisServer(redis_server_binary) as server:
        shared = World(control_plane, server, tmp_path_factory.mktemp("page"))
        with shared.operator(NAMESPACES=shared.namespace, STATUS_REFRESH="1s", LEADER_ELECTION="false") as operator:
            yield shared, operator.wait_ready()
        shared.close()
