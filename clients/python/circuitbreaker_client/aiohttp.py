"""A client middleware for aiohttp that protects each host by a breaker of its own (extra `aiohttp`).

    session = aiohttp.ClientSession(middlewares=(CircuitBreakerMiddleware(breakers),))

A status of 500 and more, an error of the connection and a timeout count as failures. A call ends when the headers are
there. A redirect is a call of its own. aiohttp shows a `total` timeout that ends while it is still connecting as a
cancellation, which is ignored: give `sock_connect` too.
"""

from collections.abc import Callable
from typing import Final

from circuitbreaker_client._async import AsyncCircuitBreakers
from circuitbreaker_client._extras import missing
from circuitbreaker_client._hosts import breaker_of_host
from circuitbreaker_client.outcomes import FailureRule

try:
    import aiohttp
except ModuleNotFoundError as error:
    raise missing("aiohttp", error) from None

__all__ = ["CircuitBreakerMiddleware", "by_host", "server_error"]

FAILURES: Final = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, aiohttp.ClientResponseError, TimeoutError)
SERVER_ERROR: Final = 500


def by_host(request: aiohttp.ClientRequest) -> str:
    """The breaker's name: the host, and the port where it is not the scheme's own."""
    url = request.url
    return breaker_of_host(url.scheme, url.raw_host or "", url.port)


def server_error(response: aiohttp.ClientResponse) -> bool:
    """Whether the status is 500 or more."""
    return response.status >= SERVER_ERROR


class CircuitBreakerMiddleware:
    """For `ClientSession(middlewares=...)`, or for one request.

    `name` gives a request's breaker. `is_failure` judges a response; `failure` and `ignore` judge what is raised, as in
    the decorator. Raises CallNotPermittedError when the breaker says no.
    """

    def __init__(
        self,
        breakers: AsyncCircuitBreakers,
        *,
        name: Callable[[aiohttp.ClientRequest], str] = by_host,
        is_failure: Callable[[aiohttp.ClientResponse], bool] = server_error,
        failure: FailureRule = FAILURES,
        ignore: FailureRule = (),
    ) -> None:
        self._breakers = breakers
        self._name, self._is_failure, self._failure, self._ignore = name, is_failure, failure, ignore

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """One protected exchange."""
        breaker = self._breakers[self._name(request)]
        async with breaker.permit(failure=self._failure, ignore=self._ignore) as permit:
            response = await handler(request)
            if self._is_failure(response):
                permit.failure()
            return response
