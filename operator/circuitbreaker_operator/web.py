"""HTTP: metrics, liveness, readiness and health. A scrape of many breakers is rendered in a thread, one at a time."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from circuitbreaker_operator.errors import SettingsError
from circuitbreaker_operator.exposition import BreakerPage
from circuitbreaker_operator.site import Site

logger = logging.getLogger(__name__)

_END: Final = b"# EOF\n"  # of OpenMetrics


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
        self._page = page
        self._checks = checks
        self._health = health
        self._alive = alive
        self._rendering = asyncio.Lock()
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

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        async with self._rendering:
            body = await asyncio.to_thread(self._written, encode, "openmetrics" in content_type)
        return web.Response(body=body, headers={"Content-Type": content_type})

    def _written(self, encode: Callable[[CollectorRegistry], bytes], openmetrics: bool) -> bytes:
        own = encode(self._registry)
        if self._page is None:
            return own
        series = self._page.write(openmetrics=openmetrics).encode()
        return own.removesuffix(_END) + series + _END if openmetrics else own + series

    async def _healthz(self, _: web.Request) -> web.Response:
        alive = self._alive()
        return web.Response(text="ok\n" if alive else "stuck\n", status=200 if alive else 503)

    async def _readyz(self, _: web.Request) -> web.Response:
        checks = self._checks()
        lines = [f"[{'+' if fine else '-'}] {name}" for name, fine in checks.items()]
        return web.Response(text="\n".join([*lines, ""]), status=200 if all(checks.values()) else 503)

    async def _report(self, _: web.Request) -> web.Response:
        return web.json_response(self._health(), dumps=json.dumps)
