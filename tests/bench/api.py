"""The API server as a load test needs it: many requests at once, one watch, and its own count of what it was asked."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes

from tests.cluster.writes import Writes, counted

ROOT = "/apis/circuitbreaker.dev/v1alpha1"
_IN_FLIGHT = 16
_CHUNK = 1_000


class Api:
    """Raises aiohttp.ClientResponseError for what is refused."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self._slots = asyncio.Semaphore(_IN_FLIGHT)

    async def post(self, path: str, body: Mapping[str, Any]) -> None:
        async with self._slots, self.session.post(path, json=body) as answer:
            answer.raise_for_status()

    async def items(self, path: str, *, metadata_only: bool = False) -> AsyncIterator[dict[str, Any]]:
        """A whole list, in pages."""
        kind = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        headers = {"Accept": kind} if metadata_only else {}
        token = ""
        while True:
            query = {"limit": str(_CHUNK)} | ({"continue": token} if token else {})
            async with self.session.get(path, params=query, headers=headers) as answer:
                answer.raise_for_status()
                page = await answer.json(content_type=None)
            for item in page.get("items") or []:
                yield item
            token = page["metadata"].get("continue") or ""
            if not token:
                return

    async def writes(self) -> Writes:
        async with self.session.get("/metrics") as answer:
            return counted(await answer.text())

    async def watch(self, saw: Callable[[dict[str, Any], float], None]) -> None:
        """Calls `saw(object, when)` for each breaker that is there and each change, until cancelled; monotonic time."""
        while True:
            try:
                await self._watch(saw)
            except aiohttp.ClientResponseError as error:
                if error.status != 429:
                    raise
                await asyncio.sleep(0.2)  # the kind is so new that the API server has no cache of it yet

    async def _watch(self, saw: Callable[[dict[str, Any], float], None]) -> None:
        query = {"watch": "true", "timeoutSeconds": "3600", "sendInitialEvents": "true"}
        query |= {"resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
        timeout = aiohttp.ClientTimeout(total=None)
        async with self.session.get(f"{ROOT}/circuitbreakers", params=query, timeout=timeout) as stream:
            stream.raise_for_status()
            rest = b""
            async for piece in stream.content.iter_any():
                now = time.monotonic()
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] in {"ADDED", "MODIFIED"}:
                        saw(event["object"], now)


@asynccontextmanager
async def api_of(kubeconfig: Path) -> AsyncIterator[Api]:
    """With the credentials of that file."""
    found = kubernetes.config.new_client_from_config(str(kubeconfig)).configuration
    context = ssl.create_default_context(cafile=found.ssl_ca_cert)
    headers = {"Authorization": found.get_api_key_with_prefix("BearerToken")}
    connector = aiohttp.TCPConnector(limit=0, ssl=context)
    async with aiohttp.ClientSession(found.host, connector=connector, headers=headers) as session:
        yield Api(session)
