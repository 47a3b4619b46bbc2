"""What a caller gets from a breaker: a question to wait for, or the grant to make one call."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from circuitbreaker_client._signals import Signal
from circuitbreaker_client.outcomes import IGNORED

if TYPE_CHECKING:
    from circuitbreaker_client._core import Core
    from circuitbreaker_contract.errors import CircuitBreakerError
    from circuitbreaker_contract.state import Permit

Record = Callable[[float], None]


class Ask(Signal):
    """A question that the background thread brings to Redis: for a permit under `lease`, or (None) what there is.

    `permit` and `error` are there once it is set; neither, when a first look has been answered. `given_up`: nobody
    waits for it any more, so a probe that it is granted goes back at once.
    """

    __slots__ = ("core", "error", "given_up", "lease", "permit")

    def __init__(self, core: "Core", lease: str | None) -> None:
        super().__init__()
        self.core = core
        self.lease = lease
        self.permit: Permit | None = None
        self.error: CircuitBreakerError | None = None
        self.given_up = False

    def fail(self, error: "CircuitBreakerError") -> None:
        """There is no answer, or not in time."""
        self.error = error
        self.set()


class Grant:
    """The right to make one call. In Closed its outcome goes to `record`; a probe is settled by its `lease`.

    A probe that is dropped without a word is given back as ignored.
    """

    __slots__ = ("_core", "_finished", "_record", "epoch", "is_local", "lease", "order")

    def __init__(
        self,
        core: "Core",
        record: Record | None,
        lease: str = "",
        order: tuple[int, int] = (0, 0),
        *,
        is_local: bool = False,
    ) -> None:
        self._core = core
        self._record = record
        self.lease = lease
        self.order = order
        self.is_local = is_local  # a probe of the local breaker
        self.epoch = core.epoch  # a grant does not survive a fork: it belongs to the parent
        self._finished = False

    @property
    def is_probe(self) -> bool:
        return self._record is None

    def finish(self, mark: float) -> None:
        """How the call ended; only the first word counts."""
        if self._finished:
            return
        self._finished = True
        if self._record is not None:
            self._core.ended(self._record, mark)
        else:
            self._core.settled(self, mark)

    def release(self) -> None:
        """Gives it back as ignored, when nothing was said yet."""
        self.finish(IGNORED)

    def __del__(self) -> None:
        # Not there when __init__ was interrupted.
        if not getattr(self, "_finished", True) and self.is_probe:
            self._core.engine.drop(self)
