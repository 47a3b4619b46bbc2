"""The decorator: puts a breaker around a function. The first lines of `protected` are the hot path.

In Closed a call costs one attribute load, two clock readings and one append. `core.record` is the bound append of the
buffer of the generation in force, or None when a call needs more than that (core.py); whatever changes the state
swaps it, so a call is recorded under the generation that permitted it, without a lock.
"""

import inspect
from asyncio import Future
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from time import perf_counter
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar, cast, overload

from circuitbreaker_client._acquiring import acquire, acquire_async
from circuitbreaker_client.errors import CallNotPermittedError
from circuitbreaker_client.outcomes import IGNORED

if TYPE_CHECKING:
    from circuitbreaker_client._core import Core
    from circuitbreaker_client._grants import Grant, Record
    from circuitbreaker_client.outcomes import Classifier

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F")

NO_FALLBACK: Final[Any] = object()
_UNDER_WAY: Final = (Coroutine, Future)


class Protection(Generic[F]):
    """A decorator with its options set; what `payments(fallback=...)` returns.

    `F` is the type of what a fallback gives; Never when there is none.
    """

    __slots__ = ("_choose", "_classifier", "_core", "_fallback", "_keeper")

    def __init__(
        self,
        keeper: object,
        core: "Core",
        classifier: "Classifier",
        fallback: Any = NO_FALLBACK,
        choose: "Callable[..., Core] | None" = None,
    ) -> None:
        self._keeper = keeper  # the breaker: it lives as long as what it protects
        self._core = core
        self._classifier = classifier
        self._fallback = fallback
        self._choose = choose

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, Coroutine[Any, Any, T | F]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R | F]: ...
    def __call__(self, function: Callable[..., Any], /) -> Callable[..., Any]:
        """The function, protected. Raises TypeError for a generator, and for what cannot be called."""
        _check(function)
        if _is_async(function):
            wrapper = self._around_async(function)
        elif self._choose is None and self._classifier.result is None:
            wrapper = self._around_plain(function)
        else:
            wrapper = self._around(function)
        protected = wraps(function)(wrapper)
        protected.__circuit_breaker__ = self._keeper  # type: ignore[attr-defined]
        return cast("Callable[..., Any]", protected)

    def _around_plain(self, function: Callable[..., Any]) -> Callable[..., Any]:
        core, mark, instead, clock = self._core, self._classifier.mark, self._instead, perf_counter
        is_new = True  # whether its call is over when it returns is looked at once

        def protected(*args: Any, **kwargs: Any) -> Any:
            nonlocal is_new
            record = core.record
            if record is None:
                return instead(core, function, args, kwargs)
            began = clock()
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                core.ended(record, mark(error, clock() - began))
                raise
            if is_new:
                _check_result(record, function, result)
                is_new = False
            record(clock() - began)
            return result

        return protected

    def _around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        classifier, choose, instead, clock = self._classifier, self._choose, self._instead, perf_counter
        only, is_new = self._core, True

        def protected(*args: Any, **kwargs: Any) -> Any:
            nonlocal is_new
            core = only if choose is None else choose(*args, **kwargs)
            record = core.record
            if record is None:
                return instead(core, function, args, kwargs)
            began = clock()
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                core.ended(record, classifier.mark(error, clock() - began))
                raise
            if is_new:
                _check_result(record, function, result)
                is_new = False
            core.ended(record, classifier.mark_of_result(result, clock() - began))
            return result

        return protected

    def _around_async(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        classifier, choose, instead, clock = self._classifier, self._choose, self._instead_async, perf_counter
        mark, only = classifier.mark, self._core
        is_plain = choose is None and classifier.result is None  # the core stays here, with its buffer

        async def protected(*args: Any, **kwargs: Any) -> Any:
            core = only if choose is None else choose(*args, **kwargs)
            record = core.record
            if record is None:
                return await instead(core, function, args, kwargs)
            began = clock()
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                core.ended(record, mark(error, clock() - began))
                raise
            if is_plain:
                record(clock() - began)
            else:
                core.ended(record, classifier.mark_of_result(result, clock() - began))
            return result

        return protected

    def _instead(self, core: "Core", function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A call that is not simply permitted: refused, or a probe, or the breaker has to be asked for first."""
        if perf_counter() < core.retry_at:
            if self._fallback is NO_FALLBACK:
                raise core.refusal()
            core.refusal()
            return self._fallen_back(args, kwargs)
        try:
            grant = acquire(core)
        except CallNotPermittedError:
            if self._fallback is NO_FALLBACK:
                raise
            return self._fallen_back(args, kwargs)
        began = perf_counter()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            grant.finish(self._classifier.mark(error, perf_counter() - began))
            raise
        if is_under_way(result):
            grant.release()
            raise not_begun(function, result)
        self._finish(grant, result, perf_counter() - began)
        return result

    async def _instead_async(self, core: "Core", function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        try:
            if perf_counter() < core.retry_at:
                raise core.refusal()
            grant = await acquire_async(core)
        except CallNotPermittedError:
            if self._fallback is NO_FALLBACK:
                raise
            value = self._fallen_back(args, kwargs)
            return await value if inspect.isawaitable(value) else value
        began = perf_counter()
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            grant.finish(self._classifier.mark(error, perf_counter() - began))
            raise
        self._finish(grant, result, perf_counter() - began)
        return result

    def _finish(self, grant: "Grant", result: object, duration_seconds: float) -> None:
        try:
            mark = self._classifier.mark_of_result(result, duration_seconds)
        except BaseException:
            grant.release()  # the result rule is broken, which is no word about the dependency
            raise
        grant.finish(mark)

    def _fallen_back(self, args: Any, kwargs: Any) -> Any:
        return self._fallback(*args, **kwargs) if callable(self._fallback) else self._fallback


def is_under_way(result: object) -> bool:
    """Whether the call that has returned this ends elsewhere: a coroutine, or a future of asyncio.

    Its type alone is asked: `__class__` makes a lazy proxy compute. `__await__` says nothing: a proxy of werkzeug and a
    future of dask have it, and are what the call was made for.
    """
    kind = type(result)
    if kind is GeneratorType:
        return inspect.isawaitable(result)  # a coroutine, when `types.coroutine` has made it
    return issubclass(kind, _UNDER_WAY)


def not_begun(function: object, result: object) -> TypeError:
    """The error for a function whose call is not over when it returns: how it ends nobody would hear."""
    if inspect.iscoroutine(result):
        result.close()
    return TypeError(
        f"{function!r} returns an awaitable: decorate an `async def` that awaits it, or call it by a breaker of "
        "AsyncCircuitBreakers"
    )


def _check_result(record: "Record", function: object, result: Any) -> None:
    """Raises TypeError for a call that is not over, which says nothing of the dependency."""
    if is_under_way(result):
        record(IGNORED)
        raise not_begun(function, result)


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - its kind is asked for, not whether it is there


def _check(function: object) -> None:
    if not callable(function) or isinstance(function, classmethod | staticmethod):
        raise TypeError(f"a breaker protects functions, not {function!r}; put it below @classmethod and @staticmethod")
    if isinstance(function, type):
        raise TypeError(f"a breaker protects functions, not the class {function.__qualname__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{getattr(function, '__qualname__', function)} is a generator: its call ends before its work begins; "
            "protect the work itself by `with breaker.permit():`"
        )
