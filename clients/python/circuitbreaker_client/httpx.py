"""A transport for httpx that protects each host by a breaker of its own (extra `httpx`).

    client = httpx.Client(transport=CircuitBreakerTransport(breakers))
    client.get("https://api.example.com/")      # breaker `api.example.com`; CallNotPermittedError while it is Open

A status of 500 and more, and an error of the transport, count as failures. A call ends when the headers are there: what
happens to a body that is read later is not seen. What never reached the host (no free connection in the pool, a
request that cannot be sent) is ignored.
"""

from collections.abc import Callable
from typing import Final

from circuitbreaker_client._async import AsyncCircuitBreakers
from circuitbreaker_client._extras import missing
from circuitbreaker_client._hosts import breaker_of_host
from circuitbreaker_client._sync import CircuitBreakers
from circuitbreaker_client.outcomes import FailureRule

try:
    import httpx
except ModuleNotFoundError as error:
    raise missing("httpx", error) from None

__all__ = ["AsyncCircuitBreakerTransport", "CircuitBreakerTransport", "by_host", "server_error"]

FAILURES: Final = (httpx.TransportError,)
IGNORED: Final = (httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.LocalProtocolError)


def by_host(request: httpx.Request) -> str:
    """The breaker's name: the host, and the port where it is not the scheme's own."""
    url = request.url
    return breaker_of_host(url.scheme, url.raw_host.decode("ascii"), url.port)


def server_error(response: httpx.Response) -> bool:
    """Whether the status is 500 or more."""
    return response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR


class CircuitBreakerTransport(httpx.BaseTransport):
    """Around `transport`, by default httpx's own.

    `name` gives a request's breaker. `is_failure` judges a response; `failure` and `ignore` judge what `transport`
    raises, as in the decorator. Raises CallNotPermittedError when the breaker says no.
    """

    def __init__(
        self,
        breakers: CircuitBreakers,
        transport: httpx.BaseTransport | None = None,
        *,
        name: Callable[[httpx.Request], str] = by_host,
        is_failure: Callable[[httpx.Response], bool] = server_error,
        failure: FailureRule = FAILURES,
        ignore: FailureRule = IGNORED,
    ) -> None:
        self._breakers = breakers
        self._transport = transport or httpx.HTTPTransport()
        self._name, self._is_failure, self._failure, self._ignore = name, is_failure, failure, ignore

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One protected exchange."""
        breaker = self._breakers[self._name(request)]
        with breaker.permit(failure=self._failure, ignore=self._ignore) as permit:
            response = self._transport.handle_request(request)
            if self._is_failure(response):
                permit.failure()
            return response

    def close(self) -> None:
        """Closes `transport`; the breakers stay."""
        self._transport.close()


class AsyncCircuitBreakerTransport(httpx.AsyncBaseTransport):
    """As CircuitBreakerTransport, for httpx.AsyncClient. A cancelled request is ignored."""

    def __init__(
        self,
        breakers: AsyncCircuitBreakers,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        name: Callable[[httpx.Request], str] = by_host,
        is_failure: Callable[[httpx.Response], bool] = server_error,
        failure: FailureRule = FAILURES,
        ignore: FailureRule = IGNORED,
    ) -> None:
        self._breakers = breakers
        self._transport = transport or httpx.AsyncHTTPTransport()
        self._name, self._is_failure, self._failure, self._ignore = name, is_failure, failure, ignore

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One protected exchange."""
        breaker = self._breakers[self._name(request)]
        async with breaker.permit(failure=self._failure, ignore=self._ignore) as permit:
            response = await self._transport.handle_async_request(request)
            if self._is_failure(response):
                permit.failure()
            return response

    async def aclose(self) -> None:
        """Closes `transport`; the breakers stay."""
        await self._transport.aclose()
