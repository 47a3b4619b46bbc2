"""What Kopf is told: one handler for events, one for credentials, and its settings. Nothing here ever patches.

Kopf reports no sign of life of a watch: bookmarks end inside it. So its requests go through a session of ours (a public
part of its API), whose responses notice when anything arrives on a watch of our resource, bookmarks too.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import aiohttp
import kopf
from kubernetes.aio.client import ApiClient

from circuitbreaker_operator.cluster import USER_AGENT
from circuitbreaker_operator.credentials import Credentials
from circuitbreaker_operator.echoes import Echoes, Lines
from circuitbreaker_operator.resource import GROUP, PLURAL, VERSION, Resource
from circuitbreaker_operator.settings import Settings
from circuitbreaker_operator.workqueue import Backoff

logger = logging.getLogger(__name__)

SILENT_AFTER_SECONDS: Final = 150.0  # bookmarks come every 60 s, and Kopf connects anew after 70 s without one

_GOOD_SECONDS: Final = 30.0  # a login that served for so long was not refused

Deliver = Callable[[str | None, Resource], None]


def kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    """Every setting of Kopf that differs from its default, and why."""
    chosen = kopf.OperatorSettings()
    chosen.watching.server_timeout = 300  # reconnects are spread and ordinary, so they work when they have to
    chosen.watching.client_timeout = 310
    chosen.watching.connect_timeout = 5
    chosen.watching.chunk_size = 100  # what of a list is taken apart at once: Python keeps what that took
    chosen.networking.request_timeout = 15
    chosen.networking.connect_timeout = 5
    chosen.networking.error_backoffs = (0.5, 1, 2, 3, 3, 3)  # then a watch lists again, and all else ends Kopf
    chosen.networking.enforce_retry_after = True
    chosen.queueing.worker_limit = None  # a limit throttles to limit/5 objects a second
    chosen.queueing.exit_timeout = 1
    chosen.posting.enabled = False  # Events are ours: named by what they tell, so that none comes twice
    chosen.peering.standalone = True  # a stray peering object must not pause us
    chosen.process.ultimate_exiting_timeout = None  # it would kill the whole process; the supervisor watches instead
    # Namespaced installations may not list CustomResourceDefinitions; they wait for ours before Kopf is started.
    chosen.scanning.disabled = bool(settings.namespaces)
    # Nothing is ever stored with an object; if a future handler did, it must not collide with another operator's.
    chosen.persistence.finalizer = f"{GROUP}/operator"
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    chosen.persistence.diffbase_storage = _NothingStored(prefix=GROUP)
    return chosen


class _NothingStored(kopf.AnnotationsDiffBaseStorage):
    """Kopf reads its annotation with each event, and one that somebody made no JSON of would keep events from us.

    It also copies each object to compare it with what it stored before, which nobody asks for.
    """

    def fetch(self, *, body: kopf.Body) -> None:  # noqa: ARG002 # Kopf gives it by name
        return None

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:  # noqa: ARG002
        return kopf.BodyEssence()


class Logins:
    """The session that Kopf uses, one at a time, and how soon it gets another one.

    A login that is refused Kopf repeats at once, some 20 times a second, and leaves its session open when it ends.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        backoff: Backoff[None] | None = None,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None
        self._last_at = float("-inf")
        self._backoff: Backoff[None] = backoff or Backoff(first=0.5, longest=5.0)

    async def pause(self) -> None:
        """Before a login: nothing after a while in which the last one was good (its token has expired)."""
        if self._clock() - self._last_at > _GOOD_SECONDS:
            self._backoff.clear()
        else:
            await self._sleep(self._backoff.next(None))
        self._last_at = self._clock()

    async def use(self, session: aiohttp.ClientSession) -> None:
        """This one from now on; the one before is closed."""
        await self.aclose()
        self._session = session

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


def registry(
    deliver: Deliver,
    credentials: Credentials,
    life: "Life",
    echoes: Echoes,
    logins: Logins,
) -> Any:
    """Kopf's registry with our handlers. All of it runs in Kopf's thread."""
    handlers = kopf.OperatorRegistry()
    response_class = _heard_response(life, echoes)

    @kopf.on.login(registry=handlers)  # type: ignore[untyped-decorator, unused-ignore]
    async def login(**_: Any) -> kopf.AiohttpSession:
        await logins.pause()
        client = await credentials.client()
        session = await _session(client, response_class)
        await logins.use(session)
        return kopf.AiohttpSession(server=str(client.configuration.host), aiohttp_session=session)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)  # type: ignore[untyped-decorator, unused-ignore]
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        try:
            resource = Resource.of(event["object"])
        except (KeyError, ValueError) as error:
            logger.warning("a resource that cannot be served: %s", error)
            return
        deliver(event["type"], resource)

    return handlers


class Life:
    """When each path last gave a sign of life, and which watches are open. Written in Kopf's thread, read in ours."""

    def __init__(self, namespaces: tuple[str, ...], clock: Callable[[], float] = time.monotonic) -> None:
        root = f"/apis/{GROUP}/{VERSION}"
        self._clock = clock
        self._heard = {
            f"{root}/namespaces/{each}/{PLURAL}" if each else f"{root}/{PLURAL}": clock()
            for each in namespaces or ("",)
        }
        self._watches: dict[str, set[object]] = {path: set() for path in self._heard}

    def begin(self) -> None:
        """A new watch starts: it has the whole time to give its first sign."""
        for path in self._heard:
            self._heard[path] = self._clock()
            self._watches[path] = set()

    @property
    def watching(self) -> bool:
        """Whether a watch of every path was accepted and is open."""
        return all(self._watches.values())

    @contextmanager
    def watch(self, path: str) -> Iterator[None]:
        """Open meanwhile."""
        watches, own = self._watches[path], object()
        watches.add(own)
        try:
            yield
        finally:
            watches.discard(own)

    def knows(self, path: str) -> bool:
        return path in self._heard

    def beat(self, path: str) -> None:
        self._heard[path] = self._clock()

    def silent_seconds(self) -> float:
        """For how long the quietest watch has said nothing."""
        return self._clock() - min(self._heard.values())


class _Heard:
    """The content of a response, telling `life` of each piece that comes; of a watch, also that it is open.

    A watch goes on without the lines that tell of our own writes.
    """

    def __init__(self, content: aiohttp.StreamReader, path: str, life: Life, echoes: Echoes | None) -> None:
        self._content = content
        self._path = path
        self._life = life
        self._echoes = echoes  # None: this is no watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        if self._echoes is None:
            async for piece in self._content.iter_chunked(size):
                self._life.beat(self._path)
                yield piece
            return
        lines = Lines(self._echoes)
        with self._life.watch(self._path):
            async for piece in self._content.iter_chunked(size):
                self._life.beat(self._path)
                if news := lines.of(piece):
                    yield news


def _heard_response(life: Life, echoes: Echoes) -> type[aiohttp.ClientResponse]:
    class Response(aiohttp.ClientResponse):
        async def start(self, connection: Any) -> aiohttp.ClientResponse:
            started = await super().start(connection)
            if life.knows(self.url.path):
                life.beat(self.url.path)
                watches = self.ok and "watch" in self.url.query
                heard = _Heard(self.content, self.url.path, life, echoes if watches else None)
                self.content = heard  # type: ignore[assignment]
            return started

    return Response


async def _session(client: ApiClient, response_class: type[aiohttp.ClientResponse]) -> aiohttp.ClientSession:
    headers: dict[str, str] = {"User-Agent": USER_AGENT}
    await client.update_params_for_auth(headers, [], ["BearerToken"], "", "GET", None)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=client.rest_client.ssl_context),
        headers=headers,
        proxy=client.configuration.proxy,
        response_class=response_class,
        json_serialize=json.dumps,
    )
