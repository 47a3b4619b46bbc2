"""What the clients for threads and for asyncio have in common: names, reading without a round trip, plain verbs."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from sys import float_info
from threading import get_ident
from time import perf_counter
from typing import Any, Generic, Self, TypeVar, Unpack
from weakref import finalize

import redis

from circuitbreaker_client._core import Core
from circuitbreaker_client._engine import Engine
from circuitbreaker_client._grants import Grant
from circuitbreaker_client._protect import Protection
from circuitbreaker_client.errors import InvalidNameError
from circuitbreaker_client.events import EventHook
from circuitbreaker_client.outcomes import FAILURE, IGNORED, Classifier, FailureRule, failed
from circuitbreaker_client.settings import Options, Settings
from circuitbreaker_client.snapshots import BreakerSnapshot, BreakerStatistics
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import State

B = TypeVar("B", bound="BreakerBase[Any]")
A = TypeVar("A", bound="BreakersBase[Any]")

# What check_state has been granted and no record_... has ended, with the thread or the task that asked: a task begins
# with a copy of its maker's context, and what stands there is not its own.
_loose: ContextVar[dict[Core, tuple[int, Grant]] | None] = ContextVar("circuitbreaker_loose_grants", default=None)


class BreakersBase(ABC, Generic[B]):
    """The breakers of one process, by name."""

    def __init__(
        self,
        *,
        on_event: EventHook | None = None,
        connection_pool: redis.ConnectionPool | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Options: see `circuitbreaker_client.settings`; the environment is not read. Raises SettingsError.

        `on_event` hears what happens (`circuitbreaker_client.events`). `connection_pool` takes the place of
        `redis_url`: its address, login and TLS are used, its timeouts not; a SentinelConnectionPool follows fail-overs.
        """
        self._begin(Settings.of(**options), on_event, connection_pool)

    @classmethod
    def from_env(
        cls,
        environment: Mapping[str, str] | None = None,
        *,
        on_event: EventHook | None = None,
        connection_pool: redis.ConnectionPool | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """From CB_* variables (of `environment`, by default os.environ); an option given by name wins.

        Raises SettingsError, with a line for each variable that is wrong.
        """
        breakers = cls.__new__(cls)
        breakers._begin(Settings.from_env(environment, **options), on_event, connection_pool)  # noqa: SLF001 - its own
        return breakers

    def _begin(self, settings: Settings, on_event: EventHook | None, pool: redis.ConnectionPool | None) -> None:
        self.settings = settings
        self._engine = Engine(settings, on_event, pool)
        self._by_name: dict[str, B] = {}
        finalize(self, self._engine.stop)

    def __getitem__(self, name: str) -> B:
        """The breaker of that name: `name` in the client's own namespace, or `namespace/name`. Sends nothing.

        The same name gives the same breaker. Raises InvalidNameError.
        """
        found = self._by_name.get(name)
        if found is None:
            if len(self._by_name) >= self.settings.max_breakers:
                for alias in self._engine.make_room():
                    self._by_name.pop(alias, None)
            found = self._by_name.setdefault(name, self._breaker(name))
        return found

    def __iter__(self) -> Iterator[str]:
        """The names, `namespace/name`, of the breakers in use."""
        return iter(sorted(self._engine.names()))

    def statistics(self) -> Mapping[str, BreakerStatistics]:
        """`namespace/name` -> counters of this process; costs the hot path nothing, never a round trip."""
        return self._engine.statistics()

    def snapshots(self) -> Mapping[str, BreakerSnapshot]:
        """`namespace/name` -> what this process acts on; never a round trip."""
        return self._engine.snapshots()

    @abstractmethod
    def _breaker(self, name: str) -> B: ...

    def _core(self, name: str) -> Core:
        try:
            key = BreakerKey.parse(name if "/" in name else f"{self.settings.namespace}/{name}")
        except (ValueError, TypeError) as error:
            raise InvalidNameError(f"breaker {name!r}: {error}") from None
        return self._engine.core(key, name)


class BreakerBase(Generic[A]):
    """One breaker, less what waits for Redis."""

    __slots__ = ("__weakref__", "_breakers", "_core")

    def __init__(self, breakers: A, name: str) -> None:
        self._breakers = breakers
        self._core = breakers._core(name)  # noqa: SLF001 - one thing in two classes

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self._core.state.value}>"

    @property
    def name(self) -> str:
        """`namespace/name`."""
        return self._core.name

    @property
    def state(self) -> State:
        """What this process acts on; never a round trip. Closed before the first answer, which is then asked for."""
        self._core.activate()
        return self._core.state

    def snapshot(self) -> BreakerSnapshot:
        """All that this process knows; never a round trip."""
        self._core.activate()
        return self._core.snapshot()

    def record_success(self, duration_seconds: float = 0.0) -> None:
        """A call that ended well, after check_state or without it. The duration tells whether it was slow."""
        self._recorded(max(0.0, duration_seconds))

    def record_failure(self, duration_seconds: float = 0.0) -> None:
        """A call that failed, after check_state or without it."""
        self._recorded(failed(min(max(0.0, duration_seconds), float_info.max)))

    def _recorded(self, mark: float) -> None:
        _, grant = (_loose.get() or {}).pop(self._core, (0, None))
        if grant is not None:
            grant.finish(mark)
        else:
            self._core.recorded(mark)

    def _protection(
        self,
        fallback: Any,
        *,
        failure: FailureRule = FAILURE,
        ignore: FailureRule = (),
        result: Callable[[Any], bool] | None = None,
        name: Callable[..., str | None] | None = None,
    ) -> Protection[Any]:
        breakers, own = self._breakers, self._core

        def chosen(*args: Any, **kwargs: Any) -> Core:
            other = None if name is None else name(*args, **kwargs)
            return own if other is None else breakers[other]._core  # noqa: SLF001 - one thing in two classes

        classifier = Classifier(failure, ignore, result)
        return Protection(self, own, classifier, fallback, None if name is None else chosen)


class PermitBase:
    """The right to make one call. One that is dropped without a word is given back as ignored."""

    __slots__ = ("_began", "_classifier", "_grant")

    def __init__(self, grant: Grant, classifier: Classifier) -> None:
        self._grant = grant
        self._classifier = classifier
        self._began = perf_counter()

    @property
    def is_probe(self) -> bool:
        """Whether the breaker is HalfOpen and this call decides what becomes of it."""
        return self._grant.is_probe

    def success(self) -> None:
        """The dependency answered. What was said first counts; more is passed over."""
        self._grant.finish(perf_counter() - self._began)

    def failure(self) -> None:
        """The dependency failed."""
        self._grant.finish(failed(perf_counter() - self._began))

    def ignore(self) -> None:
        """The call says nothing about the dependency; a probe's slot is free again."""
        self._grant.finish(IGNORED)

    def _left(self, error: BaseException | None) -> None:
        if error is None:
            self.success()
        else:
            self._grant.finish(self._classifier.mark(error, perf_counter() - self._began))

    def __del__(self) -> None:
        grant = getattr(self, "_grant", None)  # not there when __init__ was interrupted
        if grant is not None and not grant.is_probe:  # which takes locks to give back: see Grant
            grant.release()


def keep_loose(core: Core, grant: Grant) -> None:
    """Remembers a grant until this thread or task says how the call ended."""
    _loose.set({**(_loose.get() or {}), core: (_here(), grant)})


def forget_loose(core: Core) -> None:
    """Gives back what an earlier check_state of this thread or task was granted."""
    loose = _loose.get() or {}
    owner, grant = loose.get(core, (0, None))
    if grant is not None and owner == _here():
        del loose[core]
        grant.release()


def _here() -> int:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        task = None
    return get_ident() if task is None else id(task)
