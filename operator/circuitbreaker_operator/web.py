"""HTTP: metrics, liveness, readiness and health. Many breakers are rendered in a thread, once for all who ask.

The series of the breakers may be a second old; the operator's own instruments are those of the moment, so a scrape
after a takeover says who leads.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from circuitbreaker_operator.answers import Room, Shared, cut, send
from circuitbreaker_operator.errors import SettingsError
from circuitbreaker_operator.exposition import BreakerPage
from circuitbreaker_operator.site import Site

logger = logging.getLogger(__name__)

MOST_ANSWERS: Final = 64  # of metrics and health
_MOST_BYTES: Final = 64_000_000  # of renderings that are being read; 15 MB each with ten thousand breakers
_KEPT: Final = 2  # are read to the end, however large
_END: Final = b"# EOF\n"  # of OpenMetrics


@dataclass(frozen=True, eq=False, slots=True)
class _Series:
    """Those of all breakers at one moment, in one format."""

    text: bytes


class Web:
    """Serves until closed.

    `page`: the series of the breakers, if they are wanted; `site`: what people look at, likewise. `checks` are named
    answers of readiness, True for fine; `alive` is liveness.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        page: BreakerPage | None,
        checks: Callable[[], dict[str, bool]],
        health: Callable[[], dict[str, Any]],
        alive: Callable[[], bool],
        site: Site | None = None,
    ) -> None:
        self._registry = registry
        self._site = site
        self._checks = checks
        self._alive = alive
        self._room = Room(MOST_ANSWERS)
        self._rendering = asyncio.Lock()
        self._series = {
            openmetrics: Shared(partial(_series, page, openmetrics), self._rendering) for openmetrics in (False, True)
        }
        self._sending: dict[asyncio.Transport, _Series] = {}
        self._health = Shared(lambda: json.dumps(health()).encode(), asyncio.Lock())
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Raises SettingsError when the address cannot be had."""
        app = web.Application()
        if self._site is not None:
            self._site.add_to(app)
        else:
            app.router.add_get("/", self._paths)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/metrics/circuit_breaker", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/health", self._report)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await runner.cleanup()
            text = f"CB_HTTP_PORT: cannot listen on {host}:{port}: {error.strerror}; choose another address or port"
            raise SettingsError(text) from error
        self._runner = runner
        self.port = int(runner.addresses[0][1])
        logger.info("serving HTTP", extra={"host": host, "port": self.port})

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _paths(self, request: web.Request) -> web.Response:
        paths = {each.resource.canonical for each in request.app.router.routes() if each.resource is not None}
        return web.Response(text="\n".join(["circuitbreaker-operator", *sorted(paths - {"/"}), ""]))

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        openmetrics = "openmetrics" in content_type
        answer = web.StreamResponse(headers={"Content-Type": content_type})
        with self._room.one():
            series = await self._series[openmetrics].get()
            async with self._rendering:
                own = await asyncio.to_thread(encode, self._registry)
            if (transport := request.transport) is None:
                return answer  # nobody is there any more
            self._sending[transport] = series
            self._let_go()
            try:
                parts = (own.removesuffix(_END), series.text, _END) if openmetrics else (own, series.text)
                return await send(request, answer, *parts)
            finally:
                del self._sending[transport]

    def _let_go(self) -> None:
        """Cuts off who reads the oldest series when those of too many moments are held. Nobody has to wait for them."""
        held = list(dict.fromkeys(self._sending.values()))
        while len(held) > _KEPT and sum(len(each.text) for each in held) > _MOST_BYTES:
            oldest = held.pop(0)
            for transport in [transport for transport, series in self._sending.items() if series is oldest]:
                cut(transport)

    async def _healthz(self, _: web.Request) -> web.Response:
        alive = self._alive()
        return web.Response(text="ok\n" if alive else "stuck\n", status=200 if alive else 503)

    async def _readyz(self, _: web.Request) -> web.Response:
        checks = self._checks()
        lines = [f"[{'+' if fine else '-'}] {name}" for name, fine in checks.items()]
        return web.Response(text="\n".join([*lines, ""]), status=200 if all(checks.values()) else 503)

    async def _report(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/json; charset=utf-8"})
        with self._room.one():
            return await send(request, answer, await self._health.get())


def _series(page: BreakerPage | None, openmetrics: bool) -> _Series:
    return _Series(page.write(openmetrics=openmetrics).encode() if page is not None else b"")
