"""The client for threads. Everything that may wait for Redis waits at most `redis_timeout_seconds`."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Never, ParamSpec, Self, TypeVar, Unpack, overload

from circuitbreaker_client._acquiring import acquire
from circuitbreaker_client._breakers import BreakerBase, BreakersBase, PermitBase, forget_loose, keep_loose
from circuitbreaker_client._protect import NO_FALLBACK, Protection, is_under_way, not_begun
from circuitbreaker_client.outcomes import DEFAULT_CLASSIFIER, FAILURE, FailureRule, Rules, classifier_of
from circuitbreaker_contract.state import State

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F")


class CircuitBreakers(BreakersBase["CircuitBreaker"]):
    """The breakers of one process; make one, and take breakers from it by name.

        breakers = CircuitBreakers.from_env()
        payments = breakers["payments"]            # or "namespace/payments"

    Nothing is sent until the first call needs it. Safe to share between threads, and to use after fork. `close()`, or
    leaving the `with` block, sends what is buffered; at the end of the interpreter that happens by itself.
    """

    def _breaker(self, name: str) -> "CircuitBreaker":
        return CircuitBreaker(self, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def flush(self) -> None:
        """Reports what is buffered and waits for it, at most 2 x redis_timeout_seconds."""
        self._engine.flush().wait(2 * self.settings.redis_timeout_seconds)

    def close(self) -> None:
        """Sends the last outcomes, gives back leases and ends the background thread; may be repeated.

        Waits at most 2 x redis_timeout_seconds for Redis. Afterwards calls pass unprotected.
        """
        self._engine.stop().wait(2 * self.settings.redis_timeout_seconds + 1)


class Permit(PermitBase):
    """The right to make one call. Say how it ended, once.

    What leaves a `with` block unsaid is said for you: a success, or what the classifier makes of the exception.
    """

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left(error)


class CircuitBreaker(BreakerBase[CircuitBreakers]):
    """One breaker. As a decorator it protects functions, also `async def` ones."""

    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def __call__(self, **rules: Unpack[Rules]) -> Protection[Never]: ...
    @overload
    def __call__(self, *, fallback: Callable[..., F], **rules: Unpack[Rules]) -> Protection[F]: ...
    @overload
    def __call__(self, *, fallback: F, **rules: Unpack[Rules]) -> Protection[F]: ...
    def __call__(
        self, function: Callable[..., Any] | None = None, *, fallback: Any = NO_FALLBACK, **rules: Unpack[Rules]
    ) -> Any:
        """`@payments`, or `@payments(...)` with options.

        `fallback`: the answer to a call that is not permitted; a function is called with the call's arguments.
        The other options are those of `outcomes.Rules`: `failure`, `ignore`, `result`, `name`.

        The function raises CallNotPermittedError when the breaker says no and there is no fallback.
        """
        protection: Protection[Any] = self._protection(fallback, **rules)
        return protection if function is None else protection(function)

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Makes one protected call. Raises CallNotPermittedError, and what the function raises.

        Raises TypeError for an `async def` and the like: its call is not over when it returns.
        """
        with Permit(acquire(self._core), DEFAULT_CLASSIFIER) as permit:
            result = function(*args, **kwargs)
            if is_under_way(result):
                permit.ignore()
                raise not_begun(function, result)
            return result

    def permit(self, *, failure: FailureRule = FAILURE, ignore: FailureRule = ()) -> Permit:
        """Asks for the right to make one call, as a context manager or to be ended by hand.

        Raises CallNotPermittedError.
        """
        return Permit(acquire(self._core), classifier_of(failure, ignore))

    def check_state(self) -> State:
        """The state, when a call may be made; its end is told by record_success or record_failure in this thread.

        Raises CallNotPermittedError.
        """
        forget_loose(self._core)
        keep_loose(self._core, acquire(self._core))
        return self._core.state
