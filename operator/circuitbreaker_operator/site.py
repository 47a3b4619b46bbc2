"""The page over HTTP: the files that it is made of, the list, one breaker, the stream. It reads and changes nothing.

Whoever reaches the port may read. A site that somebody visits must not: there are no CORS headers, and a request that
names us by a foreign name (DNS rebinding) is refused. Names of one label, addresses and names of the cluster cannot be
had by a stranger; others are allowed by CB_WEB_HOSTS.
"""

import asyncio
import gzip
import hashlib
import ipaddress
import re
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from importlib.resources import files
from typing import Any, Final

from aiohttp import web

from circuitbreaker_contract.errors import CircuitBreakerError
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_operator.answers import LATER, WRITE_SECONDS, Room, cut, send
from circuitbreaker_operator.live import Live, TooManyViewersError

HEADERS: Final = {
    "Content-Security-Policy": "; ".join(
        (
            *("default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self'"),
            *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"),
        )
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
FILES: Final = {
    "index.html": "text/html",
    "app.js": "text/javascript",
    "breaker.js": "text/javascript",
    "drawing.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}
MOST_ANSWERS: Final = 256  # four for each page that may be open
_MOST_LISTS: Final = 16  # that are being read: 2 MB each with ten thousand breakers, and others wait
_MOST_LOOKED_AT: Final = 50
_READS: Final = 2  # of Redis at once, for all visitors: the operator's own work has the other connections
_WITHIN: Final = re.compile(r"[a-z0-9-]+|.*\.(localhost|svc|local|internal)")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """The routes of the page. `hosts`: names by which it may be asked for, besides those that are nobody else's."""

    def __init__(self, live: Live, *, hosts: Collection[str] = ()) -> None:
        self._live = live
        self._hosts = frozenset(hosts)
        self._files = {name: _File(name, kind) for name, kind in FILES.items()}
        self._room = Room(MOST_ANSWERS)
        self._listing, self._lists = asyncio.Lock(), asyncio.Semaphore(_MOST_LISTS)
        self._reading = asyncio.Semaphore(_READS)

    def add_to(self, app: web.Application) -> None:
        for path, handler in (
            ("/", self._index),
            ("/assets/{name}", self._asset),
            ("/api/breakers", self._list),
            ("/api/breakers/{namespace}/{name}", self._breaker),
            ("/api/look", self._look),
        ):
            app.router.add_get(path, self._bounded(handler))
        app.router.add_get("/api/events", self._events, allow_head=False)
        app.middlewares.append(self._guard)
        app.on_response_prepare.append(_add_headers)
        app.on_shutdown.append(self._close)

    def _bounded(self, handler: Handler) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            with self._room.one():
                made = await handler(request)
                return made if made.prepared else await send(request, made)

        return answer

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Only of the page: metrics and probes are as they were."""
        if (request.path == "/" or request.path.startswith(("/api/", "/assets/"))) and not self._expects(request.host):
            text = (
                f"This page is not served as {request.host[:200]!r}. If that is right, add the name to CB_WEB_HOSTS.\n"
            )
            raise web.HTTPMisdirectedRequest(text=text)
        answer: web.StreamResponse = await handler(request)
        return answer

    def _expects(self, host: str) -> bool:
        name = re.sub(r":\d*$", "", host.lower()).strip("[]").rstrip(".")
        with suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return name in self._hosts or _WITHIN.fullmatch(name) is not None

    async def _index(self, request: web.Request) -> web.Response:
        return self._files["index.html"].answer(request)

    async def _asset(self, request: web.Request) -> web.Response:
        file = self._files.get(request.match_info["name"])
        if file is None:
            raise web.HTTPNotFound
        return file.answer(request)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        zipped = "gzip" in request.headers.get("Accept-Encoding", "")
        headers = {"Cache-Control": "no-store", "Content-Type": "application/json", "Vary": "Accept-Encoding"}
        async with self._lists:  # until it is read
            async with self._listing:  # one at a time: making many costs the memory of one
                body = await self._live.listing()
                if zipped:
                    body = await asyncio.to_thread(gzip.compress, body, 1)
            answer = web.StreamResponse(headers=headers | ({"Content-Encoding": "gzip"} if zipped else {}))
            return await send(request, answer, body)

    async def _breaker(self, request: web.Request) -> web.Response:
        with suppress(ValueError):
            key = BreakerKey(request.match_info["namespace"], request.match_info["name"])
            async with self._reading:
                told = await self._live.whole(key, request.query.get("known", ""))
            if told is not None:
                return web.json_response(told, headers={"Cache-Control": "no-store"})
        status = {"error": "there is no such breaker", "status": self._live.status()}
        return web.json_response(status, status=404, headers={"Cache-Control": "no-store"})

    async def _look(self, request: web.Request) -> web.Response:
        keys = []
        for text in request.query.getall("key", [])[:_MOST_LOOKED_AT]:
            with suppress(ValueError):
                keys.append(BreakerKey.parse(text))
        with suppress(CircuitBreakerError):  # the stream says that Redis is away
            async with self._reading:
                await self._live.look(keys)
        # A browser does not tell a page why it got no stream.
        return web.json_response({"room": self._live.has_room}, headers={"Cache-Control": "no-store"})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        last = request.headers.get("Last-Event-ID", "") or request.query.get("after", "")
        try:
            with self._live.viewer(last) as viewer:
                answer = web.StreamResponse(
                    headers={
                        "Content-Type": "text/event-stream",
                        "Cache-Control": "no-store",
                        "X-Accel-Buffering": "no",  # a proxy that holds frames back makes them late
                    }
                )
                await answer.prepare(request)
                try:
                    async for frame in viewer.frames():
                        async with asyncio.timeout(WRITE_SECONDS):
                            await answer.write(frame)
                except (ConnectionError, TimeoutError):
                    viewer.cut = True
                if viewer.cut and request.transport is not None:
                    cut(request.transport)  # it does not read, so it would not hear of an end either
                return answer
        except TooManyViewersError:
            text = "As many pages are open as this operator serves; try again later.\n"
            return web.Response(status=503, text=text, headers=LATER)

    async def _close(self, _: web.Application) -> None:
        self._live.close()


class _File:
    """A part of the page, kept in memory; a browser that has it gets 304."""

    def __init__(self, name: str, kind: str) -> None:
        self._body = (files("circuitbreaker_operator") / "page" / name).read_bytes()
        self._etag = hashlib.sha256(self._body).hexdigest()[:32]
        charset = "" if kind.startswith("image/") else "; charset=utf-8"
        self._headers = {"Content-Type": kind + charset, "Cache-Control": "no-cache", "ETag": f'"{self._etag}"'}

    def answer(self, request: web.Request) -> web.Response:
        known = request.if_none_match or ()
        if any(each.value == self._etag for each in known):
            return web.Response(status=304, headers=self._headers)
        return web.Response(body=self._body, headers=self._headers)


async def _add_headers(_: web.Request, answer: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        answer.headers.setdefault(name, value)
