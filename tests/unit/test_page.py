"""What the page is served by: rows, the list, the stream, and who may ask. A real HTTP server, no browser."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from tests.kubeconfig import kubeconfig_with
from tests.unit.breakers import (
    CREATED,
    HALF_OPENED,
    NOW,
    OPENED,
    OWNER,
    a_resource,
    a_snapshot,
    a_transition,
    an_open_snapshot,
)

from circuitbreaker_contract.keys import Keys
from circuitbreaker_contract.state import Reason, Snapshot, State
from circuitbreaker_local.processes import free_port
from circuitbreaker_operator import live as module
from circuitbreaker_operator import rows
from circuitbreaker_operator.app import running_operator
from circuitbreaker_operator.cache import Cache
from circuitbreaker_operator.live import Live, TooManyViewersError
from circuitbreaker_operator.metrics import Book
from circuitbreaker_operator.resource import Resource
from circuitbreaker_operator.settings import Settings
from circuitbreaker_operator.site import HEADERS, Site
from circuitbreaker_operator.web import Web

HOUR = 3_600_000


class Stage:
    """A page without an operator behind it."""

    def __init__(self) -> None:
        self.book, self.cache = Book(), Cache()
        self.live = Live(self.book, self.cache, condition=lambda: {"role": "leader", "redis": True})
        self.site = Site(self.live, hosts=("breakers.example.com",))
        self.web = Web(CollectorRegistry(), page=None, checks=dict, health=dict, alive=lambda: True, site=self.site)

    def put(self, name: str, *, version: int = 1, **status: Any) -> Resource:
        resource = a_resource(name=name, uid=f"uid-{name}", resourceVersion=str(version), status=status)
        self.cache.put(resource)
        return resource

    def see(self, name: str, **changed: Any) -> None:
        resource = self.cache.get(a_resource(name=name).key) or self.put(name)
        self.book.put(resource.key, a_snapshot(uid=resource.uid, **changed))


@asynccontextmanager
async def served(stage: Stage) -> AsyncIterator[aiohttp.ClientSession]:
    await stage.web.start("127.0.0.1", 0)
    task = asyncio.create_task(stage.live.run())
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{stage.web.port}") as session:
            yield session
    finally:
        await stage.web.close()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def heard(stream: aiohttp.ClientResponse, kind: str) -> tuple[str, Any]:
    """(id, data) of the next message of a kind."""
    number = event = ""
    async with asyncio.timeout(10):
        async for raw in stream.content:
            name, _, value = raw.decode().rstrip("\n").partition(": ")
            match name:
                case "id":
                    number = value
                case "event":
                    event = value
                case "data" if event == kind:
                    return number, json.loads(value)
    raise AssertionError("the stream has ended")


def named(row: list[Any]) -> dict[str, Any]:
    return dict(zip(rows.COLUMNS, row, strict=True))


def test_the_last_hour_is_kept_in_order() -> None:
    """Also of transitions within one millisecond, and of two looks that overlap; what is older is forgotten."""
    past, key = rows.Past(), a_resource().key
    at = CREATED.at_ms
    forced = a_transition(State.OPEN, 2, Reason.FORCED, at_ms=at)
    past.learn(key, (CREATED, forced), NOW)
    assert past.of(key) == ["", at, "Closed", at, "Open"]
    past.learn(key, (forced, HALF_OPENED), NOW)
    assert past.of(key) == ["", at, "Closed", at, "Open", HALF_OPENED.at_ms, "HalfOpen"]
    past.learn(key, (), at + HOUR + 1)
    assert past.of(key) == ["Open", HALF_OPENED.at_ms, "HalfOpen"]
    past.learn(key, (), NOW + HOUR)
    assert (past.of(key), len(past)) == ([], 0)


async def test_what_came_and_went_unseen_is_forgotten() -> None:
    """Names that are used once, as of preview environments, do not add up while nobody looks at the page."""
    stage = Stage()
    for name in ("shown", "unseen"):
        stage.see(name)
        if name == "shown":
            await stage.live.listing()
        resource = stage.put(name)
        stage.cache.bury(resource.key, resource.uid)
        stage.book.drop(resource.key)
    assert [key.name for key in stage.live._stale] == ["shown"]
    assert json.loads(await stage.live.listing())["rows"] == []
    assert not stage.live._rows


def test_the_last_hour_is_bounded() -> None:
    past, key = rows.Past(), a_resource().key
    story = [a_transition(State.OPEN, number, Reason.FORCED, at_ms=CREATED.at_ms + number) for number in range(500)]
    past.learn(key, story, NOW)
    assert (len(past), past.of(key)[-2]) == (rows.MOST_OF_ONE, story[-1].at_ms)


def test_a_row_says_what_a_look_needs() -> None:
    """Of an open breaker, and of one that nothing is known of but a status that somebody forged."""
    shown = named(rows.row(a_resource(), an_open_snapshot(), []))
    assert shown == {
        "namespace": "shop",
        "name": "pay",
        "state": "Open",
        "sinceMs": OPENED.at_ms,
        "reason": "ConsecutiveFailures",
        "openUntilMs": OPENED.open_until_ms,
        "failureRatePercent": None,
        "slowCallRatePercent": None,
        "consecutiveFailures": 5,
        "notPermitted": 0,
        "trips": 1,
        "mode": "",
        "forced": False,
        "notReady": "",
        "past": [],
    }
    forged = a_resource(status={"conditions": ["x", {"type": "Ready", "status": "False", "reason": "a\nb" * 99}]})
    unknown = named(rows.row(forged, None, []))
    assert (unknown["state"], len(unknown["notReady"]), "\n" in unknown["notReady"]) == ("", 64, False)


async def test_the_list_and_the_changes_fit_together() -> None:
    """A list says up to which frame it goes; a change comes as a frame; a stream goes on where it was."""
    stage = Stage()
    stage.see("one")
    async with served(stage) as session:
        async with session.get("/api/events") as stream:
            assert (await heard(stream, "hello"))[1]["resumed"] is False
            async with session.get("/api/breakers") as answer:
                listing = await answer.json()
            assert [named(each)["name"] for each in listing["rows"]] == ["one"]
            stage.see("two", state=State.OPEN)
            number, change = await heard(stream, "rows")
            while not any("two" in each for each in change["rows"]):
                number, change = await heard(stream, "rows")
            stage.cache.bury(a_resource(name="one").key, "uid-one")
            last, gone = await heard(stream, "rows")
            assert (gone["rows"], gone["gone"]) == ([], ["shop/one"])
        async with session.get("/api/events", headers={"Last-Event-ID": number}) as stream:
            assert (await heard(stream, "hello"))[1]["resumed"] is True
            assert (await heard(stream, "rows"))[0] == last
        async with session.get("/api/events", headers={"Last-Event-ID": "ffffffff-1"}) as stream:
            assert (await heard(stream, "hello"))[1]["resumed"] is False


async def test_what_did_not_change_is_not_told() -> None:
    """A status that we wrote ourselves makes the row again, and no frame."""
    stage = Stage()
    stage.see("one")
    async with served(stage) as session, session.get("/api/events") as stream:
        await heard(stream, "rows")
        stage.put("one", version=2, message="new")
        stage.see("two")
        _, change = await heard(stream, "rows")
        assert [named(each)["name"] for each in change["rows"]] == ["two"]


async def test_viewers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is told to come later; when one goes there is room."""
    monkeypatch.setattr(module, "MOST_VIEWERS", 1)
    stage = Stage()
    async with served(stage) as session:
        with stage.live.viewer(""), pytest.raises(TooManyViewersError), stage.live.viewer(""):
            pass
        async with session.get("/api/events") as stream:
            await heard(stream, "hello")
            async with session.get("/api/events") as refused:
                assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
        async with asyncio.timeout(10):
            while stage.live.viewers:  # the next pulse finds out that nobody reads
                await asyncio.sleep(0.05)


async def test_who_does_not_read_is_cut_off() -> None:
    """It costs others nothing: not their frames, and no memory without end."""
    stage = Stage()
    with stage.live.viewer("") as slow, stage.live.viewer("") as quick:
        taken = quick.frames()
        await anext(taken)
        for number in range(300):
            stage.see("one", consecutive_failures=number)
            await stage.live._refresh()
            await anext(taken)
        assert (slow.cut, quick.cut) == (True, False)
        assert [frame async for frame in slow.frames()] == []


async def test_the_kept_frames_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT_BYTES", 2_000)
    stage = Stage()
    for number in range(50):
        stage.see("one", consecutive_failures=number)
        await stage.live._refresh()
    assert sum(len(frame) for _, frame in stage.live._kept) <= 2_000
    with stage.live.viewer(f"{stage.live._boot}-1") as viewer:
        assert b'"resumed":false' in await anext(viewer.frames())


async def test_every_answer_has_the_strict_headers() -> None:
    """And nothing but reading is possible; no other site is let in."""
    stage = Stage()
    stage.see("one")
    async with served(stage) as session:
        for path in (
            "/",
            "/assets/app.js",
            "/api/breakers",
            "/api/breakers/shop/one",
            "/api/look",
            "/nothing",
            "/health",
        ):
            async with session.get(path, headers={"Origin": "https://evil.example"}) as answer:
                assert HEADERS.items() <= dict(answer.headers).items(), path
                assert not [name for name in answer.headers if name.startswith("Access-Control")]
                assert "Set-Cookie" not in answer.headers
            for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
                async with session.request(method, path) as answer:
                    assert answer.status in {404, 405}, (method, path)
        async with session.head("/") as answer:
            assert answer.status == 200
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert not [word for word in ("unsafe", "data:", "*", "http") if word in policy]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("127.0.0.1:8000", 200), ("[::1]:8000", 200), ("localhost:8000", 200), ("circuitbreaker-operator", 200)),
        *(("circuitbreaker-operator.circuitbreaker-system.svc.cluster.local:8000", 200), ("operator.x.svc", 200)),
        *(("breakers.example.com", 200), ("Breakers.Example.Com.", 200), ("evil.example", 421)),
        *(("127.0.0.1.evil.example:8000", 421), ("a.svc.evil.example", 421), ("", 421)),
    ],
)
async def test_a_foreign_name_is_refused(host: str, status: int) -> None:
    """A page of a stranger whose name leads here (DNS rebinding) reads nothing; metrics and probes are as they were."""
    async with served(Stage()) as session:
        for path in ("/", "/api/breakers", "/assets/app.js"):
            async with session.get(path, headers={"Host": host}) as answer:
                assert answer.status == status, path
                assert status == 200 or "CB_WEB_HOSTS" in await answer.text()
        async with session.get("/healthz", headers={"Host": host}) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    "path", ["/api/breakers/shop/none", "/api/breakers/SHOP/%7Bx%7D", "/assets/../web.py", "/assets/x"]
)
async def test_what_is_not_there_is_not_found(path: str) -> None:
    async with served(Stage()) as session, session.get(path) as answer:
        assert answer.status == 404


async def test_files_are_sent_once() -> None:
    async with served(Stage()) as session:
        async with session.get("/assets/style.css") as answer:
            tag = answer.headers["ETag"]
            assert answer.headers["Content-Type"] == "text/css; charset=utf-8"
        async with session.get("/assets/style.css", headers={"If-None-Match": tag}) as again:
            assert (again.status, await again.read()) == (304, b"")


async def test_ten_thousand_rows_are_small_and_hold_nobody_up() -> None:
    """Less than two megabytes, a tenth of it over the wire; others get their turn meanwhile."""
    stage = Stage()
    for number in range(10_000):
        stage.see(f"breaker-{number}")
    waited: list[float] = []

    async def wait() -> None:
        loop = asyncio.get_running_loop()
        while True:
            at = loop.time()
            await asyncio.sleep(0)
            waited.append(loop.time() - at)

    async with served(stage) as session:
        waiting = asyncio.create_task(wait())
        async with session.get("/api/breakers", headers={"Accept-Encoding": "gzip"}, auto_decompress=False) as answer:
            raw = await answer.read()
        waiting.cancel()
    body = gzip.decompress(raw)
    assert len(json.loads(body)["rows"]) == 10_000
    assert len(body) < 2_000_000
    assert len(raw) < 300_000
    assert max(waited) < 1.0  # 20 ms where the machine is not busy


def test_all_files_of_the_page_are_served() -> None:
    """Nothing lies there unused, and nothing is asked for that is not there; no address of anybody else."""
    from importlib.resources import files

    from circuitbreaker_operator.site import FILES

    folder = files("circuitbreaker_operator") / "page"
    assert {each.name for each in folder.iterdir()} == set(FILES)
    text = {name: (folder / name).read_text() for name in FILES}
    for name, body in text.items():
        assert "innerHTML" not in body
        assert "http" not in body.replace('"http://www.w3.org/2000/svg"', ""), name


class Reads:
    """Stands where the store does: answers each read with one snapshot, and as much of its history as is asked for."""

    def __init__(self, seen: Snapshot) -> None:
        self.seen = seen

    async def in_batches(self, calls: Sequence[Any]) -> list[Snapshot]:
        return [replace(self.seen, history=self.seen.history[-int(call.args[0]) :]) for call in calls]


async def test_what_nobody_looks_at_any_more_is_left_to_the_book(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole histories of all that anybody had looked at were kept while one page was open: 117 KB a breaker."""
    stage, key = Stage(), a_resource().key
    stage.see("pay")
    reads = Reads(a_snapshot(uid="uid-pay", now_ms=NOW + 1, history=(CREATED,) * 256))
    stage.live.lead(reads, Keys(), OWNER)  # type: ignore[arg-type]
    shown = await stage.live.whole(key, "")
    assert shown is not None
    assert len(shown["history"]) == 256
    assert [seen.history for seen, _ in stage.live._looked_at.values()] == [(CREATED,)]
    stage.live._leave()
    assert stage.live._looked_at, "somebody looks at it"

    monkeypatch.setattr(module, "_LOOKED_AT_SECONDS", -1.0)
    stage.live._leave()
    assert not stage.live._looked_at

    reads.seen = an_open_snapshot(uid="uid-pay", now_ms=NOW + 2)
    await stage.live.look([key])
    stage.live._leave()
    listing = json.loads(await stage.live.listing())
    assert named(listing["rows"][0])["state"] == "Open", "the book has not heard of it"


async def test_visitors_leave_connections_to_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some hundred that asked at once for a breaker took all of them, and Redis looked as if it had gone."""
    stage = Stage()
    stage.see("pay")
    reading, most = 0, 0

    async def read(*_: Any) -> dict[str, Any]:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        await asyncio.sleep(0.001)
        reading -= 1
        return {}

    monkeypatch.setattr(stage.live, "whole", read)
    monkeypatch.setattr(stage.live, "look", read)
    async with served(stage) as session:
        asked = [session.get(path) for path in ("/api/breakers/shop/pay", "/api/look?key=shop/pay") for _ in range(20)]
        answers = await asyncio.gather(*asked)
    assert ({answer.status for answer in answers}, most) == ({200}, 2)


@pytest.mark.parametrize("number", ["9" * 5_000, "-1", "1.5", "", "x"])
async def test_a_stream_that_never_was_begins_anew(number: str) -> None:
    stage = Stage()
    async with served(stage) as session, session.get(f"/api/events?after={stage.live._boot}-{number}") as stream:
        assert (await heard(stream, "hello"))[1]["resumed"] is False


async def test_a_stream_lives_before_the_operator_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the API server, to learn whose breakers these are; a silent stream is one that broke for a page."""
    server = f"http://127.0.0.1:{free_port()}"
    config = kubeconfig_with(tmp_path / "config", cluster={"server": server}, user={})
    monkeypatch.setenv("KUBECONFIG", str(config))
    settings = Settings.load(http_host="127.0.0.1", http_port=free_port(), leader_election="false")
    async with (
        running_operator(settings) as operator,
        aiohttp.ClientSession(f"http://127.0.0.1:{operator.http_port}") as session,
        session.get("/api/events") as stream,
    ):
        assert (await heard(stream, "status"))[1]["role"] == "starting"


async def test_it_is_told_whether_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser does not tell a page why it has no stream."""
    stage = Stage()
    async with served(stage) as session:
        for most, room in ((1, True), (0, False)):
            monkeypatch.setattr(module, "MOST_VIEWERS", most)
            async with session.get("/api/look") as answer:
                assert await answer.json() == {"room": room}
