"""How a call gets its grant: in Closed from the snapshot alone, else by one protocol with two executors.

`_steps` says what has to be waited for; `acquire` waits in a thread, `acquire_async` in a task. Together they wait at
most `redis_timeout_seconds`; then the local breaker decides, or (strict) the call is told that Redis is silent. Whoever
has only waited in line until then is refused: a probe of the local breaker would come on top of the fleet's.
"""

from collections.abc import Generator
from time import perf_counter

from circuitbreaker_client._core import Core
from circuitbreaker_client._grants import Ask, Grant


def acquire(core: Core) -> Grant:
    """Raises CallNotPermittedError; a strict client also StoreUnavailableError."""
    if (grant := core.grant_simply()) is not None:
        return grant
    steps = _steps(core)
    try:
        ask, seconds = next(steps)
        while True:
            try:
                ask.wait(seconds)
            except BaseException as error:  # noqa: BLE001 - the generator tidies up and raises it again
                ask, seconds = steps.throw(error)
            else:
                ask, seconds = next(steps)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


async def acquire_async(core: Core) -> Grant:
    """As `acquire`. When the task is cancelled meanwhile, a probe that is granted goes back at once."""
    if (grant := core.grant_simply()) is not None:
        return grant
    steps = _steps(core)
    try:
        ask, seconds = next(steps)
        while True:
            try:
                await ask.wait_async(seconds)
            except BaseException as error:  # noqa: BLE001 - the generator tidies up and raises it again
                ask, seconds = steps.throw(error)
            else:
                ask, seconds = next(steps)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


def _steps(core: Core) -> Generator[tuple[Ask, float], None, Grant]:
    deadline = perf_counter() + core.settings.redis_timeout_seconds
    waited: Ask | None = None
    is_own = has_heard = False
    while True:
        now = perf_counter()
        has_heard = has_heard or (waited is not None and waited.is_set and waited.error is None)
        found, is_own = core.step(waited, now, is_own=is_own, is_late=now >= deadline, has_heard=has_heard)
        if isinstance(found, Grant):
            return found
        waited = found
        try:
            yield found, deadline - now
        except BaseException:
            if is_own:
                core.give_up(found)
            raise
