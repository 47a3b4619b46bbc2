"""The client for asyncio: the same surface, with `await` where Redis may be waited for.

No loop is bound: one object may serve several loops, one after the other or at once. Redis is talked to by the same
background thread as in `_sync.py`, so a cancelled task never leaves a half-read reply behind.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Never, ParamSpec, Self, TypeVar, Unpack, overload

from circuitbreaker_client._acquiring import acquire_async
from circuitbreaker_client._breakers import BreakerBase, BreakersBase, PermitBase, forget_loose, keep_loose
from circuitbreaker_client._core import Core
from circuitbreaker_client._protect import NO_FALLBACK, Protection
from circuitbreaker_client.outcomes import DEFAULT_CLASSIFIER, FAILURE, Classifier, FailureRule, Rules, classifier_of
from circuitbreaker_contract.state import State

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F")


class AsyncCircuitBreakers(BreakersBase["AsyncCircuitBreaker"]):
    """As CircuitBreakers, for asyncio. Make it anywhere, also at import time and outside of a loop."""

    def _breaker(self, name: str) -> "AsyncCircuitBreaker":
        return AsyncCircuitBreaker(self, name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def flush(self) -> None:
        """Reports what is buffered and waits for it, at most 2 x redis_timeout_seconds."""
        await self._engine.flush().wait_async(2 * self.settings.redis_timeout_seconds)

    async def close(self) -> None:
        """Sends the last outcomes, gives back leases and ends the background thread; may be repeated.

        Waits at most 2 x redis_timeout_seconds for Redis. Afterwards calls pass unprotected.
        """
        await self._engine.stop().wait_async(2 * self.settings.redis_timeout_seconds + 1)


class AsyncPermit(PermitBase):
    """As Permit, by `async with payments.permit() as p` or `p = await payments.permit()`."""

    __slots__ = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left(error)


class PermitRequest(Awaitable[AsyncPermit]):
    """What `permit()` returns: to be awaited, or entered."""

    __slots__ = ("_classifier", "_core", "_permit")

    def __init__(self, core: Core, classifier: Classifier) -> None:
        self._core = core
        self._classifier = classifier
        self._permit: AsyncPermit | None = None

    def __await__(self) -> Generator[Any, None, AsyncPermit]:
        return self._acquired().__await__()

    async def _acquired(self) -> AsyncPermit:
        return AsyncPermit(await acquire_async(self._core), self._classifier)

    async def __aenter__(self) -> AsyncPermit:
        self._permit = await self._acquired()
        return self._permit

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._permit is not None:
            await self._permit.__aexit__(kind, error, trace)


class AsyncCircuitBreaker(BreakerBase[AsyncCircuitBreakers]):
    """One breaker. As a decorator it protects functions, `async def` or not."""

    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def __call__(self, **rules: Unpack[Rules]) -> Protection[Never]: ...
    @overload
    def __call__(self, *, fallback: Callable[..., Coroutine[Any, Any, F]], **rules: Unpack[Rules]) -> Protection[F]: ...
    @overload
    def __call__(self, *, fallback: Callable[..., F], **rules: Unpack[Rules]) -> Protection[F]: ...
    @overload
    def __call__(self, *, fallback: F, **rules: Unpack[Rules]) -> Protection[F]: ...
    def __call__(
        self, function: Callable[..., Any] | None = None, *, fallback: Any = NO_FALLBACK, **rules: Unpack[Rules]
    ) -> Any:
        """`@payments`, or `@payments(...)` with the options of CircuitBreaker. A cancelled call is ignored."""
        protection: Protection[Any] = self._protection(fallback, **rules)
        return protection if function is None else protection(function)

    async def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Makes one protected call. Raises CallNotPermittedError, and what the function raises.

        Raises TypeError for what gives nothing to await, which is no failure of the dependency.
        """
        async with AsyncPermit(await acquire_async(self._core), DEFAULT_CLASSIFIER) as permit:
            result = function(*args, **kwargs)
            if not inspect.isawaitable(result):
                permit.ignore()
                raise TypeError(f"{function!r} is not async: decorate it, or call it by a breaker of CircuitBreakers")
            return await result

    def permit(self, *, failure: FailureRule = FAILURE, ignore: FailureRule = ()) -> PermitRequest:
        """Asks for the right to make one call: `async with payments.permit() as p`, or `p = await payments.permit()`.

        Raises CallNotPermittedError when awaited or entered.
        """
        return PermitRequest(self._core, classifier_of(failure, ignore))

    async def check_state(self) -> State:
        """The state, when a call may be made; its end is told by record_success or record_failure in this task.

        Raises CallNotPermittedError.
        """
        forget_loose(self._core)
        keep_loose(self._core, await acquire_async(self._core))
        return self._core.state
