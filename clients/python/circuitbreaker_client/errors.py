"""What the client raises on purpose. Errors of redis-py never cross the API: they stay in `__cause__`."""

from circuitbreaker_contract.errors import CircuitBreakerError


class CallNotPermittedError(CircuitBreakerError):
    """The breaker said no: answer without the dependency, or come back after `retry_after_seconds`.

    `breaker` is its name, `namespace/name`. `retry_after_seconds` is 0.0 or more; None: a person holds it open, and
    nobody knows for how long.
    """

    def __init__(self, breaker: str, retry_after_seconds: float | None) -> None:
        # The base class is not called: its arguments are all it would keep, and a refusal has to be cheap.
        self.breaker = breaker
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        if self.retry_after_seconds is None:
            return f"{self.breaker} is held open"
        return f"{self.breaker} permits no call, retry after {self.retry_after_seconds:.3f} s"

    def __reduce__(self) -> tuple[type["CallNotPermittedError"], tuple[str, float | None]]:
        return type(self), (self.breaker, self.retry_after_seconds)


class StoreUnavailableError(CircuitBreakerError):
    """Redis gave no answer in time, or none that helps. Only a client with `strict=True` raises it to callers."""


class SettingsError(CircuitBreakerError, ValueError):
    """An option or a CB_* variable has a value that cannot be used; the text names each of them, a line each."""


class InvalidNameError(CircuitBreakerError, ValueError):
    """A breaker's name is not `name` or `namespace/name` in the form that Kubernetes has."""
