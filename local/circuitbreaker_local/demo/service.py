"""One process of a service that protects its calls with a shared breaker: `service NAME BREAKER HOST:PORT`.

CB_REDIS_URL says where Redis is. What the breaker does is printed; the calls themselves are the backend's to count.
"""

import http.client
import sys
import time
from contextlib import suppress

from circuitbreaker_client import CallNotPermittedError, CircuitBreakers, Event, State, StateChanged

CALLS_PER_SECOND = 20
FAILURES = (OSError, http.client.HTTPException)


def charge(backend: str) -> None:
    """One call to the backend. Raises one of FAILURES when it is not answered well."""
    connection = http.client.HTTPConnection(backend, timeout=2)
    try:
        connection.request("GET", "/charge")
        answer = connection.getresponse()
        answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise http.client.HTTPException(f"status {answer.status}")
    finally:
        connection.close()


def run(name: str, breaker: str, backend: str) -> None:
    """Calls until the process is ended."""

    def say(state: State) -> None:
        wait = payments.snapshot().retry_after_seconds if state is State.OPEN else None
        refusing = f", refusing calls for {wait:.1f} s" if wait else ""
        print(f"{name}: the breaker is {state}{refusing}", flush=True)

    def on_event(event: Event) -> None:
        if isinstance(event, StateChanged):
            say(event.state)

    with CircuitBreakers.from_env(on_event=on_event) as breakers:
        payments = breakers[breaker]
        protected = payments(charge)
        with payments.permit() as permit:  # asks Redis for the state, and says nothing of the backend
            permit.ignore()
        say(payments.state)
        while True:
            with suppress(CallNotPermittedError, *FAILURES):
                protected(backend)
            time.sleep(1 / CALLS_PER_SECOND)  # the pace of its work


if __name__ == "__main__":
    run(*sys.argv[1:4])
