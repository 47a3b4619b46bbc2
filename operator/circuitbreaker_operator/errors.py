"""Errors of the operator, by who can do something about them; those of the contract are in circuitbreaker_contract."""

from typing import Final

from circuitbreaker_contract.errors import CircuitBreakerError

FULL: Final = "Redis is full"  # so the text begins when there is no memory left; what is there goes on


class SettingsError(CircuitBreakerError):
    """The environment asks for something that cannot be; one line for each variable, with what to do about it."""


class StoreUnavailableError(CircuitBreakerError):
    """Redis gave no answer in time, or cannot serve now. The same call is repeated later; every call can be."""


class SlotMovingError(CircuitBreakerError):
    """The keys of this breaker are on their way to another node of a Redis Cluster: no outage, repeated in a moment."""


class StoreRefusedError(CircuitBreakerError):
    """Redis answered with an error that repeating does not cure: no permission, a key of another type, FULL."""


class ClusterUnavailableError(CircuitBreakerError):
    """The API server gave no answer in time, or asked to come back.

    `retry_after_seconds` is 0 unless it said when; `is_busy`: it works, and asks for fewer requests (429).
    """

    def __init__(self, message: str, *, retry_after_seconds: float = 0.0, is_busy: bool = False) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.is_busy = is_busy


class EventsUnavailableError(ClusterUnavailableError):
    """Events cannot be written, while all else can and for a while: nothing should wait for them.

    `begins`: until now they were waited for in that namespace.
    """

    def __init__(self, message: str, *, begins: bool = False) -> None:
        super().__init__(message)
        self.begins = begins


class NoPlaceError(ClusterUnavailableError):
    """Nothing was sent, and nothing has failed: so many wait for an answer already."""


class ClusterRefusedError(CircuitBreakerError):
    """The API server refused a request; `status` is the HTTP status, `reason` Kubernetes' word for it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}" if message else f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.message = message


class LeaseLostError(CircuitBreakerError):
    """We lead no more, or may not: the process ends at once, and starts again as a standby."""


class GaveUpError(CircuitBreakerError):
    """A part failed again and again and a new process may do better; the text says which and why."""
