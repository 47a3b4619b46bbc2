"""An adapter for requests that protects each host by a breaker of its own (extra `requests`).

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, CircuitBreakerAdapter(breakers))

A status of 500 and more, an error of the connection and a timeout count as failures. A call ends when `send` returns:
with `stream=True` that is when the headers are there. A redirect is a call of its own.
"""

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from circuitbreaker_client._extras import missing
from circuitbreaker_client._hosts import breaker_of_host
from circuitbreaker_client._sync import CircuitBreakers
from circuitbreaker_client.outcomes import FailureRule

try:
    import requests
    from requests.adapters import HTTPAdapter
except ModuleNotFoundError as error:
    raise missing("requests", error) from None

__all__ = ["CircuitBreakerAdapter", "by_host", "server_error"]

FAILURES: Final = (requests.ConnectionError, requests.Timeout, requests.exceptions.RetryError)
SERVER_ERROR: Final = 500
IGNORED: Final = (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, requests.exceptions.InvalidSchema)


def by_host(request: requests.PreparedRequest) -> str:
    """The breaker's name: the host, and the port where it is not the scheme's own."""
    url = urlsplit(request.url or "")
    return breaker_of_host(url.scheme, url.hostname or "", url.port)


def server_error(response: requests.Response) -> bool:
    """Whether the status is 500 or more."""
    return response.status_code >= SERVER_ERROR


class CircuitBreakerAdapter(HTTPAdapter):
    """An HTTPAdapter, with the same further options (`pool_maxsize`, `max_retries`, ...).

    `name` gives a request's breaker. `is_failure` judges a response; `failure` and `ignore` judge what is raised, as in
    the decorator. `send` raises CallNotPermittedError when the breaker says no; with `max_retries` all tries are one.
    """

    def __init__(
        self,
        breakers: CircuitBreakers,
        *,
        name: Callable[[requests.PreparedRequest], str] = by_host,
        is_failure: Callable[[requests.Response], bool] = server_error,
        failure: FailureRule = FAILURES,
        ignore: FailureRule = IGNORED,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._breakers = breakers
        self._name, self._is_failure, self._failure, self._ignore = name, is_failure, failure, ignore

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """One protected exchange."""
        breaker = self._breakers[self._name(request)]
        with breaker.permit(failure=self._failure, ignore=self._ignore) as permit:
            response = super().send(request, *args, **kwargs)
            if self._is_failure(response):
                permit.failure()
            return response
