"""Answers over HTTP: made once for many, bounded, and none for who does not read. A real server, real sockets."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from tests.unit.breakers import a_snapshot
from tests.unit.test_page import Stage, served

from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_operator import answers, site, web
from circuitbreaker_operator.exposition import BreakerPage
from circuitbreaker_operator.metrics import Book, Metrics
from circuitbreaker_operator.web import Web

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


class Page(BreakerPage):
    """Counts how often it is written; `text` is what it says."""

    def __init__(self) -> None:
        super().__init__(Book())
        self.text, self.written = "", 0

    def write(self, *, openmetrics: bool) -> str:  # noqa: ARG002
        self.written += 1
        return self.text


@pytest.fixture
def page() -> Page:
    return Page()


@asynccontextmanager
async def serving(
    page: BreakerPage, registry: CollectorRegistry | None = None, health: Callable[[], dict[str, Any]] = dict
) -> AsyncIterator[tuple[Web, aiohttp.ClientSession]]:
    told = Web(registry or CollectorRegistry(), page=page, checks=dict, health=health, alive=lambda: True)
    await told.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{told.port}") as session:
            yield told, session
    finally:
        await told.close()


async def silent(port: int, path: str) -> socket.socket:
    """Asks, and reads nothing."""
    asking = socket.socket()
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    asking.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(asking, ("127.0.0.1", port))
    await loop.sock_sendall(asking, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return asking


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def cut_off(asking: socket.socket) -> bool:
    """Whether the connection is reset after what had arrived; else it ends, or more comes."""
    with asking, suppress(TimeoutError):
        try:
            async with asyncio.timeout(10):
                while await asyncio.get_running_loop().sock_recv(asking, 65_536):
                    pass
        except ConnectionResetError:
            return True
    return False


async def test_who_does_not_read_is_cut_off(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty that asked for the metrics of 2,000 breakers and read none took 175 MB, for as long as they liked."""
    monkeypatch.setattr(answers, "WRITE_SECONDS", 0.2)
    page.text = "#\n" * 10_000_000
    async with serving(page) as (told, _):
        asking = await silent(told.port, "/metrics")
        await until(lambda: told._room.taken == 1)
        await until(lambda: told._room.taken == 0)
        assert await cut_off(asking)


async def test_the_page_too_is_for_those_who_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "WRITE_SECONDS", 0.2)

    async def listing() -> bytes:
        return b" " * 20_000_000  # that of 100,000 breakers

    monkeypatch.setattr(site, "_MOST_LISTS", 1)
    stage = Stage()
    monkeypatch.setattr(stage.live, "listing", listing)
    async with served(stage) as session:
        asking = await silent(stage.web.port, "/api/breakers")
        await until(stage.site._lists.locked)
        async with session.get("/api/breakers") as answer:  # waits until there is room
            assert len(await answer.read()) == 20_000_000
        assert await cut_off(asking)


async def test_answers_under_way_are_bounded(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is told when to come again, probes always have an answer, and who has read makes room."""
    monkeypatch.setattr(web, "MOST_ANSWERS", 2)
    page.text = "#\n" * 10_000_000
    async with serving(page) as (told, session):
        reading = [await silent(told.port, "/metrics") for _ in range(2)]
        await until(lambda: len(told._sending) == 2)
        for path in ("/metrics", "/health"):
            async with session.get(path) as refused:
                assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
        for path in ("/healthz", "/readyz"):
            async with session.get(path) as answer:
                assert answer.status == 200
        for asking in reading:
            asking.close()
        await until(lambda: told._room.taken == 0)
        async with session.get("/metrics") as answer:
            assert await answer.text() == page.text


async def test_what_is_being_read_is_bounded(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who read slowly do not hold as many renderings as there are of them, and keep nobody else from reading."""
    monkeypatch.setattr(answers, "_REUSED_SECONDS", 0.0)
    monkeypatch.setattr(web, "_MOST_BYTES", 30_000_000)
    page.text = "#\n" * 10_000_000
    async with serving(page) as (told, session):
        reading = []
        for number in range(3):
            reading.append(await silent(told.port, "/metrics"))
            await until(lambda number=number: page.written == number + 1 and len(told._sending) == min(2, number + 1))
        assert await cut_off(reading[0])
        await until(lambda: len(told._sending) == 2)
        assert len(set(told._sending.values())) == 2
        async with session.get("/metrics") as answer:
            assert len(await answer.read()) == len(page.text)
        for asking in reading[1:]:
            asking.close()


async def test_all_who_wait_share_one_rendering(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty eager readers made Prometheus wait for a rendering of each of them."""
    release = threading.Event()
    write = page.write

    def slow(*, openmetrics: bool) -> str:
        release.wait(10)
        return write(openmetrics=openmetrics)

    monkeypatch.setattr(page, "write", slow)
    async with serving(page) as (told, session):
        asked = [asyncio.ensure_future(session.get("/metrics")) for _ in range(20)]
        await until(lambda: told._room.taken == 20)
        release.set()
        assert {answer.status for answer in await asyncio.gather(*asked)} == {200}
    assert page.written <= 2  # who came after it was begun may have waited for the next


@pytest.mark.parametrize("headers", [{}, OPENMETRICS])
async def test_what_costs_is_kept_for_a_second_at_most(
    page: Page, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    """From when it was begun; and no longer, so that it does not lie in memory until the next scrape."""
    assert answers._REUSED_SECONDS <= 1.0
    monkeypatch.setattr(answers, "_REUSED_SECONDS", 0.2)
    monkeypatch.setattr(answers, "_REUSED_TIMES", 1e9)
    async with serving(page) as (told, session):

        async def said() -> str:
            async with session.get("/metrics", headers=headers) as answer:
                return (await answer.text()).removesuffix("# EOF\n")

        loop = asyncio.get_running_loop()
        page.text = "# first\n"
        began = loop.time()
        assert await said() == "# first\n"
        page.text = "# second\n"
        while (now := await said()) == "# first\n":
            assert loop.time() - began < 1.0  # 0.2 where the machine is not busy
            await asyncio.sleep(0.01)
        assert (now, page.written) == ("# second\n", 2)
        await until(lambda: all(each._made is None for each in told._series.values()))


async def test_what_costs_nothing_is_always_new(page: Page) -> None:
    """A few breakers are written in a millisecond: who looks after a change sees it."""
    async with serving(page) as (_, session):
        for number in range(5):
            page.text = f"# {number}\n"
            await asyncio.sleep(0.02)
            async with session.get("/metrics") as answer:
                assert await answer.text() == page.text


async def test_nothing_of_before_a_takeover(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_REUSED_TIMES", 1e9)
    metrics = Metrics()
    async with serving(page, metrics.registry) as (_, session):
        for leader in (0, 1):
            if leader:
                metrics.lead()
            async with session.get("/metrics") as answer:
                assert f"\ncircuitbreaker_operator_leader {leader}.0\n" in await answer.text()
    assert page.written == 1


async def test_health_leaves_the_loop_alone(page: Page) -> None:
    """With ten thousand breakers it takes a tenth of a second, in which no Lease was renewed."""
    threads = []

    def health() -> dict[str, Any]:
        threads.append(threading.current_thread())
        return {"status": "healthy"}

    async with serving(page, health=health) as (_, session), session.get("/health") as answer:
        assert (await answer.json(), answer.content_type) == ({"status": "healthy"}, "application/json")
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("path", ["/metrics", "/health"])
async def test_head_has_no_body(path: str) -> None:
    """And what comes next on the connection is the next answer."""
    book = Book()
    book.put(BreakerKey("shop", "pay"), a_snapshot())
    async with serving(BreakerPage(book)) as (_, session):
        for _ in range(2):
            async with session.head(path) as answer:
                assert (answer.status, await answer.read()) == (200, b"")
            async with session.get(path) as answer:
                assert len(await answer.read()) == int(answer.headers["Content-Length"]) > 0
