"""Everything said to the API server but the watch: lists for the sweep, reads, statuses, Events, our owner's uid.

Requests are few and small, so they go through the low level of kubernetes.aio: it brings credentials, TLS and token
refresh, and lets us choose what a list answers with (metadata alone is enough for a sweep).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_operator import lease as leases
from circuitbreaker_operator.credentials import IN_FLIGHT, Credentials
from circuitbreaker_operator.errors import (
    ClusterRefusedError,
    ClusterUnavailableError,
    EventsUnavailableError,
    NoPlaceError,
    SettingsError,
)
from circuitbreaker_operator.lease import Lease
from circuitbreaker_operator.logs import Outage
from circuitbreaker_operator.places import Places
from circuitbreaker_operator.resource import API_VERSION, GROUP, PLURAL, VERSION, Resource
from circuitbreaker_operator.telling import Telling

T = TypeVar("T")

logger = logging.getLogger(__name__)
_UNHEARD = logging.getLogger(f"{__name__}.unheard")
_UNHEARD.disabled = True

USER_AGENT: Final = f"circuitbreaker-operator/{version('circuitbreakers')}"
_CHUNK: Final = 500
_TIMEOUT = aiohttp.ClientTimeout(total=15.0, sock_connect=5.0)
_EVENT_TIMEOUT = aiohttp.ClientTimeout(total=5.0, sock_connect=5.0)  # where the one before was not taken
_EVENTS_IN_FLIGHT: Final = IN_FLIGHT // 2  # the rest is for statuses, however long nobody answers to an Event
_EVENTS_OF_ONE: Final = _EVENTS_IN_FLIGHT * 3 // 4  # namespace
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_TOO_MANY = 429
_BUSY = frozenset({_TOO_MANY, 500, 502, 503, 504})
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError)  # of an answer without the form that it should have
_UNAUTHORIZED = 401  # of every request, whoever asks for what: until that is put right there is no API server for us
_LOGIN_REMEDY = "it does not accept our credentials: check KUBECONFIG or the service account's token"
_WRITES_REMEDY = (
    "statuses and Events wait; it answers to reads, so look at its own log and at etcd (its disk, its quota)"
)
_LONGEST_PAUSE_SECONDS = 60.0
_LOGIN_SECONDS = 10.0  # between two attempts to get other credentials
_NOT_THERE = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)  # whatever was to be sent
_LONG_SECONDS = 5.0  # of an outage: those who wait have given up to come back soon


Refusal = ClusterRefusedError | ClusterUnavailableError


class Listed(msgspec.Struct, rename="camel", frozen=True):
    """A resource as a sweep sees it."""

    name: str
    namespace: str
    uid: str
    resource_version: str


class _Item(msgspec.Struct):
    metadata: Listed


class _PageMetadata(msgspec.Struct):
    token: str = msgspec.field(name="continue", default="")


class _Page(msgspec.Struct):
    """What is read of a list of thousands; most of its text is managedFields, which is skipped without a look."""

    metadata: _PageMetadata
    items: list[_Item] | None = None


_PAGES: Final = msgspec.json.Decoder(_Page)


class Cluster:
    """The API server. Raises ClusterUnavailableError (come back later) or ClusterRefusedError (status, reason).

    `check` is called before each request and may forbid it; without `says`, whoever asks speaks of outages. When the
    credentials are refused they are loaded again: of a kubeconfig a token, or a plugin's, is read but once. `telling`
    is shared by all that write for one operator.
    """

    def __init__(
        self,
        credentials: Credentials,
        client: ApiClient,
        *,
        waits: bool = True,
        check: Callable[[], None] = lambda: None,
        says: bool = True,
        telling: Telling | None = None,
    ) -> None:
        self._check = check
        self._telling = telling or Telling()
        self.credentials = credentials
        self._client = client
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._event_places = Places(_EVENTS_IN_FLIGHT, _EVENTS_OF_ONE)
        self.address = str(client.configuration.host)
        waiting = "; waiting for it" if waits else ""
        remedy = f"check that it runs and can be reached{waiting}"
        self._login_remedy = f"{_LOGIN_REMEDY}{waiting}"
        told = logger if says else _UNHEARD
        self._outage = Outage(told, f"API server at {self.address}", remedy=remedy)
        # It may read and refuse to write: one outage for both would begin and end with each request.
        self._writes_outage = Outage(told, f"writing to the API server at {self.address}", remedy=_WRITES_REMEDY)
        self._login_at = 0.0  # when other credentials may be looked for
        self.returned: list[Callable[[], None]] = []  # told when an outage of some length is over
        self._reached = False  # what the last request came to
        self.latency_seconds: float | None = None

    @property
    def answers(self) -> bool:
        """Whether it can be used: it took the last request, and does not refuse to write."""
        return self._reached and self._writes_outage.seconds == 0.0

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]

    async def namespace_uid(self, name: str) -> str:
        return await self._request("GET", f"/api/v1/namespaces/{name}", lambda body: str(body["metadata"]["uid"]))

    async def serves_circuitbreakers(self) -> bool:
        """Whether the CustomResourceDefinition is there and its version is served."""
        try:
            return await self._request(
                "GET",
                f"/apis/{API_VERSION}",
                lambda body: any(each["name"] == PLURAL for each in body["resources"] or []),
            )
        except ClusterRefusedError as error:
            if error.status == 404:
                return False
            raise

    async def list_all(self, namespaces: tuple[str, ...]) -> dict[BreakerKey, Listed]:
        """Every resource, as of one moment in each namespace (or in all, when none is given)."""
        listed = {}
        for namespace in namespaces or ("",):
            async for page in self._pages(_path(namespace)):
                for item in page:
                    with suppress(ValueError):
                        listed[BreakerKey.of(item.metadata.namespace, item.metadata.name)] = item.metadata
        return listed

    async def get(self, key: BreakerKey) -> Resource | None:
        """The resource as it is now; None when there is none."""
        try:
            return await self._request("GET", f"{_path(key.namespace)}/{key.name}", Resource.of)
        except ClusterRefusedError as error:
            if error.status == 404:
                return None
            raise

    async def patch_status(self, resource: Resource, patch: Mapping[str, Any]) -> Resource:
        """Writes what changes in the status of exactly this version; refused with 409 when there is a newer one."""
        body = {"metadata": {"resourceVersion": resource.resource_version, "uid": resource.uid}, "status": patch}
        path = f"{_path(resource.key.namespace)}/{resource.key.name}/status"
        try:
            written = await self._request("PATCH", path, Resource.of, body, content_type="application/merge-patch+json")
        except ClusterUnavailableError:
            self._telling.unwritten(resource.key.namespace)
            raise
        self._telling.written(resource.key.namespace)
        return written

    async def create_event(self, body: Mapping[str, Any]) -> None:
        """Raises EventsUnavailableError and NoPlaceError as well."""
        namespace = body["metadata"]["namespace"]
        async with self._event_places.one(namespace):
            if self._telling.finds_out(namespace):
                raise NoPlaceError("one is tried")
            if self._telling.is_hopeless(namespace):
                raise EventsUnavailableError(str(self._telling.cause))
            await self._post(namespace, body)

    def may_try(self, namespace: str) -> bool:
        """Whether one is tried where they are hopeless; `try_event` has to follow."""
        return self._telling.may_try(namespace)

    async def try_event(self, body: Mapping[str, Any]) -> None:
        """Raises like `create_event`."""
        namespace = body["metadata"]["namespace"]
        try:
            await self._post(namespace, body)
        finally:
            self._telling.tried(namespace)

    async def _post(self, namespace: str, body: Mapping[str, Any]) -> None:
        loop, path = asyncio.get_running_loop(), f"/api/v1/namespaces/{namespace}/events"
        limits = _EVENT_TIMEOUT if self._telling.is_failing(namespace) else _TIMEOUT
        began = loop.time()
        try:
            await self._send("POST", path, lambda _: None, body, is_event=True, limits=limits)
        except ClusterUnavailableError as error:
            if self._telling.failed(namespace, began, error, busy=error.is_busy):
                raise EventsUnavailableError(str(error), begins=True) from error
            raise
        except ClusterRefusedError:
            self._telling.posted(namespace)
            raise
        self._telling.posted(namespace)

    async def get_lease(self, namespace: str, name: str) -> Lease | None:
        try:
            return await self._request("GET", f"{_leases(namespace)}/{name}", Lease.of)
        except ClusterRefusedError as error:
            if error.status == 404 and error.reason == "NotFound":
                return None
            raise

    async def create_lease(self, namespace: str, body: Mapping[str, Any]) -> Lease:
        return await self._request("POST", _leases(namespace), Lease.of, body)

    async def update_lease(self, namespace: str, name: str, body: Mapping[str, Any]) -> Lease:
        """Refused with 409 when there is a newer version than the one in `body`."""
        return await self._request("PUT", f"{_leases(namespace)}/{name}", Lease.of, body)

    async def _pages(self, path: str) -> AsyncIterator[list[_Item]]:
        token = ""
        while True:
            query = [("limit", str(_CHUNK)), *([("continue", token)] if token else [])]
            page = await self._send("GET", path, _PAGES.decode, query=query, accept=_METADATA_ONLY)
            yield page.items or []
            token = page.metadata.token
            if not token:
                return

    async def _request(
        self,
        method: str,
        path: str,
        read: Callable[[Any], T],
        body: Mapping[str, Any] | None = None,
        *,
        content_type: str = "application/json",
    ) -> T:
        return await self._send(
            method, path, lambda data: read(msgspec.json.decode(data)), body, content_type=content_type
        )

    async def _send(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], T],
        body: Mapping[str, Any] | None = None,
        *,
        query: list[tuple[str, str]] | None = None,
        accept: str = "application/json",
        content_type: str = "application/json",
        is_event: bool = False,
        limits: aiohttp.ClientTimeout = _TIMEOUT,
    ) -> T:
        """What `read` makes of the answer. One that it cannot read comes of something before the API server."""
        url = f"{self.address}{path}{f'?{urlencode(query)}' if query else ''}"
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": USER_AGENT}
        loop = asyncio.get_running_loop()
        async with self._slots:
            began = loop.time()
            try:
                await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
                self._check()
                response = await self._client.rest_client.request(  # type: ignore[no-untyped-call]
                    method, url, headers=headers, body=body, _request_timeout=limits
                )
                data: bytes = await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError, ApiException) as error:
                silence = ClusterUnavailableError(str(error) or type(error).__name__)
                if isinstance(error, _NOT_THERE) or not (is_event and self._telling.takes_others()):
                    self._reached = False
                    self._outage.failed(silence)
                raise silence from error
        self.latency_seconds = loop.time() - began
        refusal = None
        if not 200 <= response.status < 300:
            refusal = _refusal(response.status, response.headers, data)
        else:
            try:
                answer = read(data)
            except _UNREADABLE as error:
                refusal = ClusterUnavailableError(f"{response.status} that is no answer of it: {data[:80]!r}")
                refusal.__cause__ = error
        if not (is_event and self._says_nothing(refusal)):
            self._judge(method, response.status, refusal)
        if method != "GET" and not is_event and not isinstance(refusal, ClusterUnavailableError):
            self._telling.accepted()
        if response.status == _UNAUTHORIZED:
            await self._log_in_again()
        if refusal is not None:
            raise refusal
        return answer

    async def _log_in_again(self) -> None:
        """Takes up what the kubeconfig says now. What is under way with the old credentials fails like the rest."""
        now = asyncio.get_running_loop().time()
        if now < self._login_at:
            return
        self._login_at = now + _LOGIN_SECONDS
        try:
            client = await self.credentials.client()
        except SettingsError as error:
            logger.debug("no other credentials: %s", error)
            return
        before, self._client = self._client, client
        await before.close()  # type: ignore[no-untyped-call]

    def _says_nothing(self, refusal: Refusal | None) -> bool:
        """Of the API server: it takes other writes, or so many Events and no more."""
        return isinstance(refusal, ClusterUnavailableError) and (refusal.is_busy or self._telling.takes_others())

    def _judge(self, method: str, status: int, refusal: Refusal | None) -> None:
        """What an answer tells of the API server."""
        unavailable = isinstance(refusal, ClusterUnavailableError)
        refuses_login = status == _UNAUTHORIZED
        self._reached = not refuses_login and not (unavailable and method == "GET")
        if refuses_login:
            self._outage.failed(refusal, remedy=self._login_remedy)
        elif not unavailable:
            lasted_seconds = self._outage.seconds
            self._outage.recovered()
            if method != "GET":
                lasted_seconds = max(lasted_seconds, self._writes_outage.seconds)
                self._writes_outage.recovered()
            if lasted_seconds >= _LONG_SECONDS:
                for tell in self.returned:
                    tell()
        elif method == "GET":
            self._outage.failed(refusal)
        else:
            self._writes_outage.failed(refusal)


def is_terminating(error: ClusterRefusedError) -> bool:
    """Whether an Event was refused because its namespace goes away, or has gone."""
    return error.status == 404 or (error.status == 403 and "being terminated" in error.message)


def _leases(namespace: str) -> str:
    return f"/apis/{leases.API_VERSION}/namespaces/{namespace}/leases"


def _path(namespace: str) -> str:
    root = f"/apis/{GROUP}/{VERSION}"
    return f"{root}/namespaces/{namespace}/{PLURAL}" if namespace else f"{root}/{PLURAL}"


def _refusal(status: int, headers: Mapping[str, str], data: bytes) -> Refusal:
    try:
        said = msgspec.json.decode(data)
        reason, message = str(said.get("reason") or ""), str(said.get("message") or "")
    except (ValueError, AttributeError):
        reason, message = "", data[:200].decode(errors="replace")
    if status in _BUSY or status == _UNAUTHORIZED:
        try:
            pause = float(headers.get("Retry-After") or 0.0)
        except ValueError:
            pause = 0.0
        return ClusterUnavailableError(
            f"{status} {reason}: {message}",
            retry_after_seconds=min(max(0.0, pause), _LONGEST_PAUSE_SECONDS),
            is_busy=status == _TOO_MANY,
        )
    return ClusterRefusedError(status, reason, message)
