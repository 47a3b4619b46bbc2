"""What a developer writes: decorator, context manager, call, plain verbs; for threads."""

import asyncio
import gc
import math
import pickle
import types
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial

import pytest
from werkzeug.local import LocalProxy

from circuitbreaker_client import (
    CallNotPermittedError,
    CallRefused,
    CircuitBreakerError,
    CircuitBreakers,
    InvalidNameError,
    Outcome,
    Policy,
    Source,
    State,
    StateChanged,
)
from circuitbreaker_local.processes import free_port
from tests.client.world import POLICY, SHORT, fail, half_open, until, until_state
from tests.contract.callers import Caller


def test_the_decorator_passes_calls_through_and_counts_them(world) -> None:
    caller, breakers = world.breaker(), world.client()

    @breakers["payments"]
    def charge(amount: int, *, currency: str = "EUR") -> str:
        """Charges."""
        if amount < 0:
            raise ValueError(amount)
        return f"{amount} {currency}"

    assert [charge(1), charge(2, currency="CHF")] == ["1 EUR", "2 CHF"]
    with pytest.raises(ValueError, match="-1"):
        charge(-1)
    assert (charge.__name__, charge.__doc__) == ("charge", "Charges.")
    breakers.flush()
    totals = caller.observe().totals
    assert (totals.successes, totals.failures) == (2, 1)


def test_it_opens_refuses_probes_and_closes(world) -> None:
    caller = world.breaker(policy=SHORT)
    payments = world.client()["payments"]
    fail(payments, 3)
    until_state(payments, State.OPEN)
    with pytest.raises(CallNotPermittedError) as refused:
        payments.call(int)
    assert refused.value.breaker == "demo/payments"
    assert 0 < refused.value.retry_after_seconds <= 0.1
    assert "demo/payments permits no call, retry after 0." in str(refused.value)
    until(lambda: payments.snapshot().retry_after_seconds == 0, "the end of the opening")
    assert payments.call(lambda: "back") == "back"
    until_state(payments, State.CLOSED)
    assert caller.observe().probes.succeeded == 1
    changes = [(each.previous, each.state) for each in world.events if isinstance(each, StateChanged)]
    assert changes == [
        (State.CLOSED, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.CLOSED),
    ]
    assert all(each.source is Source.SHARED for each in world.events if isinstance(each, StateChanged))


def test_refusals_are_counted_and_told(world) -> None:
    caller = world.breaker()
    breakers = world.client()
    payments = breakers["payments"]
    fail(payments, 3)
    until_state(payments, State.OPEN)
    for _ in range(4):
        with pytest.raises(CallNotPermittedError):
            payments.call(int)
    breakers.flush()
    assert caller.observe().totals.not_permitted == 4
    assert breakers.statistics()["demo/payments"].refused == 4
    assert sum(isinstance(each, CallRefused) for each in world.events) == 4


@pytest.mark.parametrize(
    ("fallback", "answer"), [("cached", "cached"), (None, None), (lambda amount: f"cached {amount}", "cached 5")]
)
def test_a_fallback_answers_for_a_refused_call(world, fallback, answer) -> None:
    world.breaker()
    payments = world.client()["payments"]

    @payments(fallback=fallback)
    def charge(amount: int) -> str:
        raise OSError

    for _ in range(3):
        with pytest.raises(OSError):
            charge(5)  # a failure is no refusal
    until_state(payments, State.OPEN)
    assert charge(5) == answer


def _outcomes(caller: Caller) -> tuple[int, int, int]:
    totals = caller.observe().totals
    return totals.successes, totals.failures, totals.ignored


@pytest.mark.parametrize(
    ("rules", "error", "outcomes"),
    [
        ({}, OSError(), (0, 1, 0)),
        ({"failure": (OSError,)}, ConnectionError(), (0, 1, 0)),
        ({"failure": OSError}, KeyError(), (1, 0, 0)),
        ({"ignore": (KeyError,)}, KeyError(), (0, 0, 1)),
        ({"failure": (LookupError,), "ignore": KeyError}, KeyError(), (0, 0, 1)),
        ({"failure": lambda error: "503" in str(error)}, OSError("503"), (0, 1, 0)),
        ({"failure": lambda error: "503" in str(error)}, OSError("404"), (1, 0, 0)),
        ({"ignore": lambda error: "404" in str(error)}, OSError("404"), (0, 0, 1)),
        ({}, KeyboardInterrupt(), (0, 0, 1)),
        ({"failure": lambda _: True}, asyncio.CancelledError(), (0, 0, 1)),
        ({"ignore": lambda error: error.status == 404}, asyncio.CancelledError(), (0, 0, 1)),
        ({"failure": (SystemExit,)}, SystemExit(), (0, 1, 0)),
    ],
)
@pytest.mark.parametrize("way", ["decorator", "permit"])
def test_what_counts(world, rules, error, outcomes, way) -> None:
    caller, breakers = world.breaker(), world.client()
    payments = breakers["payments"]

    def work() -> None:
        raise error

    def permitted() -> None:
        with payments.permit(**rules):
            work()

    protected = payments(**rules)(work) if way == "decorator" else permitted
    with pytest.raises(type(error)):
        protected()
    breakers.flush()
    assert _outcomes(caller) == outcomes


def test_a_result_can_be_a_failure(world) -> None:
    caller, breakers = world.breaker(), world.client()
    status = breakers["payments"](result=lambda code: code >= 500)(lambda code: code)
    assert [status(200), status(503), status(404)] == [200, 503, 404]
    breakers.flush()
    assert _outcomes(caller) == (2, 1, 0)


def test_slow_calls_are_told_apart(world) -> None:
    slow = Policy(5, 60_000, 1, 1, 1_000, slow_call_duration_ms=100, slow_call_rate_percent=90)
    caller, breakers = world.breaker(policy=slow), world.client()
    payments = breakers["payments"]
    payments.call(int)
    payments.record_success(0.1)  # not longer than
    payments.record_success(0.2)
    payments.record_failure(0.2)
    breakers.flush()
    totals = caller.observe().totals
    assert (totals.successes, totals.failures, totals.slow) == (3, 1, 2)
    assert breakers.statistics()["demo/payments"].outcomes[Outcome.SLOW_SUCCESS] == 1


def test_in_closed_nobody_waits_for_a_lock(world) -> None:
    """However a call is protected: threads that end calls, and the background thread, hold the lock at any time."""
    caller, breakers = world.breaker(), world.client()
    payments = breakers["payments"]
    protected = payments(lambda: 5)
    assert protected() == 5
    with ThreadPoolExecutor(1) as other:
        with payments._core.lock:
            calls = [
                other.submit(protected),
                other.submit(payments.call, lambda: 5),
                other.submit(_by_permit, payments),
            ]
            assert [each.result(10) for each in calls] == [5, 5, 5]
        breakers.flush()
    assert _outcomes(caller) == (4, 0, 0)


def _by_permit(payments) -> int:
    with payments.permit() as permit:
        assert not permit.is_probe
        return 5


def test_a_permit_takes_the_first_word(world) -> None:
    caller, breakers = world.breaker(), world.client()
    payments = breakers["payments"]
    with payments.permit() as permit:
        permit.failure()
        permit.success()
    with payments.permit():
        pass
    permit = payments.permit()
    permit.ignore()
    permit = payments.permit()
    assert not permit.is_probe
    del permit  # without a word
    gc.collect()
    breakers.flush()
    assert _outcomes(caller) == (1, 1, 2)


def test_plain_verbs(world) -> None:
    caller, breakers = world.breaker(policy=SHORT), world.client()
    payments = breakers["payments"]
    for _ in range(3):
        assert payments.check_state() is State.CLOSED
        payments.record_failure()
    until_state(payments, State.OPEN)
    with pytest.raises(CallNotPermittedError):
        payments.check_state()
    until(lambda: payments.snapshot().retry_after_seconds == 0, "the end of the opening")
    assert payments.check_state() is State.HALF_OPEN
    payments.record_success()  # settles the probe
    until_state(payments, State.CLOSED)
    assert caller.observe().probes.succeeded == 1


@pytest.mark.parametrize("length", [-0.5, -2.0, math.nan, math.inf])
def test_a_length_that_cannot_be_is_none(world, length) -> None:
    """A clock that was set back between its two readings turns nothing into its opposite."""
    caller, breakers = world.breaker(), world.client()
    payments = breakers["payments"]
    payments.call(int)
    payments.record_success(length)
    payments.record_success(length)
    payments.record_failure(length)
    breakers.flush()
    assert _outcomes(caller) == (3, 1, 0)


def test_a_function_that_returns_what_is_to_be_awaited(world) -> None:
    """It ends before anything was sent, so it is no success: that is said at its first call."""

    async def send() -> None:
        raise OSError

    def plain() -> object:  # as the methods of many clients for asyncio are
        return send()

    caller, breakers = world.breaker(), world.client()
    payments = breakers["payments"]
    for number, protected in enumerate((payments(plain), payments(result=lambda _: False)(plain))):
        for _ in range(3):  # the first one asks for the breaker, the others are simply permitted
            with pytest.raises(TypeError, match="returns an awaitable: decorate an `async def` that awaits it"):
                protected()
        breakers.flush()
        assert _outcomes(caller) == (0, 0, 3 * (number + 1))


class Deferred:
    """Can be awaited, and is a result all the same, as a future of dask is."""

    def __await__(self) -> Generator[None, None, int]:
        yield
        return 5


class Lazy:
    """Computes what it stands for when it is asked for its class."""

    @property
    def __class__(self) -> type:
        raise ConnectionError


@pytest.mark.parametrize("make", [partial(LocalProxy, ContextVar("nothing")), Deferred, Lazy])
def test_a_result_that_can_be_awaited_is_a_result(make: Callable[[], object]) -> None:
    """What is asked of it is its type, and nothing that a proxy would pass on."""
    result = make()
    with CircuitBreakers(state_sync=False) as breakers:
        payments = breakers["payments"]
        for protected in (payments(lambda: result), payments(result=lambda _: False)(lambda: result)):
            assert all(protected() is result for _ in range(3))  # the first one asks for the breaker
        assert payments.call(lambda: result) is result
        breakers.flush()
        assert breakers.statistics()["default/payments"].outcomes[Outcome.SUCCESS] == 7


def test_calls_that_are_not_over_when_they_return() -> None:
    """Whoever has made the coroutine, and a future of asyncio too."""

    @types.coroutine
    def generator() -> Generator[None, None, None]:
        yield

    class Compiled:
        """As the coroutines of Cython, and what aiohttp returns for a request."""

        __await__ = send = throw = close = lambda *_: None

    async def mistaken() -> None:
        future = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(asyncio.sleep(0))
        for function in (lambda: future, lambda: task, generator, Compiled):
            with pytest.raises(TypeError, match="returns an awaitable"):
                payments.call(function)
        await task

    with CircuitBreakers(state_sync=False) as breakers:
        payments = breakers["payments"]
        asyncio.run(mistaken())
        breakers.flush()
        assert breakers.statistics()["default/payments"].outcomes[Outcome.IGNORED] == 4


def test_a_probe_that_check_state_forgot_goes_back(world) -> None:
    caller, breakers = world.breaker(policy=SHORT), world.client()
    payments = breakers["payments"]
    half_open(caller, payments)
    assert payments.check_state() is State.HALF_OPEN
    assert payments.check_state() is State.HALF_OPEN  # the limit is one: the first one has gone back
    payments.record_failure()
    until_state(payments, State.OPEN)
    probes = caller.observe().probes
    assert (probes.granted, probes.ignored, probes.failed) == (2, 1, 1)


def test_keyed_breakers(world) -> None:
    """The call's arguments choose the breaker; None is the breaker itself."""
    default, eu = world.breaker("payments"), world.breaker("payments-eu")
    breakers = world.client()
    charge = breakers["payments"](name=lambda region: f"payments-{region}" if region else None)(lambda region: region)
    assert [charge("eu"), charge("eu"), charge("")] == ["eu", "eu", ""]
    breakers.flush()
    assert (default.observe().totals.successes, eu.observe().totals.successes) == (1, 2)
    assert list(breakers) == ["demo/payments", "demo/payments-eu"]


def test_the_number_of_breakers_is_bounded(world) -> None:
    """The ones unused for longest are forgotten, what they had is reported, and a held one works on."""
    callers = [world.breaker(f"b-{number}") for number in range(30)]
    breakers = world.client(max_breakers=10)
    held = breakers["b-0"]
    for number in range(30):
        breakers[f"b-{number}"].call(int)
    until(lambda: len(list(breakers)) <= 11, "breakers to be forgotten")
    assert held.call(lambda: 5) == 5
    assert breakers["b-0"].name == held.name
    breakers["b-0"].call(int)
    breakers.flush()
    until(lambda: [caller.observe().totals.successes for caller in callers] == [3, *[1] * 29], "all reports")


def test_a_call_that_ends_after_its_breaker_was_forgotten(world) -> None:
    caller, breakers = world.breaker(), world.client(max_breakers=1)
    permit = breakers["payments"].permit()
    breakers["other"]  # takes its place
    until(lambda: not list(breakers) and not breakers._engine._rhythm._awake, "it to be forgotten")
    permit.success()
    until(lambda: caller.observe().totals.successes == 1, "the report")
    until(lambda: not list(breakers), "it to be forgotten again")


def test_the_number_of_breakers_is_bounded_without_redis_too(world) -> None:
    """Nothing that is forgotten can be reported; it is not kept for that for as long as Redis is away."""
    breakers = world.client(redis_url=f"redis://127.0.0.1:{free_port()}/0", max_breakers=10)
    for number in range(200):
        breakers[f"host-{number}"].call(int)
    until(lambda: len(breakers.statistics()) <= 10, "breakers to be forgotten")
    assert "demo/host-199" in breakers.statistics()


def test_names(world) -> None:
    breakers = world.client()
    assert breakers["payments"] is breakers["payments"]
    assert breakers["other/payments"].name == "other/payments"
    for name in ("Payments", "", "a/b/c", "x" * 64, "/x", "pay ments", "{x}"):
        with pytest.raises(InvalidNameError, match="must be 1 to 63"):
            breakers[name]


def test_what_cannot_be_protected_is_said_at_once(world) -> None:
    payments = world.client()["payments"]

    def generator():
        yield 1

    async def async_generator():
        yield 1

    for function in (generator, async_generator):
        with pytest.raises(TypeError, match="is a generator"):
            payments(function)
    for thing in (5, int, classmethod(generator), staticmethod(generator)):
        with pytest.raises(TypeError, match="a breaker protects functions"):
            payments(thing)
    for rules in ({"failure": "OSError"}, {"ignore": (5,)}):
        with pytest.raises(TypeError, match="must be exception classes"):
            payments(**rules)
    with pytest.raises(TypeError, match="falback"):
        payments(falback=1)


def test_a_call_of_the_other_kind_is_a_mistake_and_no_outcome(world) -> None:
    """Neither a success of a coroutine that nobody ran, nor a failure of the dependency."""
    sync, asynchronous = world.client(state_sync=False), world.async_client(state_sync=False)
    alone, together = sync["payments"], asynchronous["payments"]

    async def charge() -> None:
        raise OSError

    async def mistaken() -> None:
        await together.call(lambda: 5)

    for _ in range(POLICY.failure_threshold + 1):
        for call in (lambda: alone.call(charge), lambda: alone.call(partial(charge))):
            with pytest.raises(TypeError, match="returns an awaitable"):
                call()
        with pytest.raises(TypeError, match="is not async"):
            asyncio.run(mistaken())
    assert asyncio.run(together.call(asyncio.sleep, 0, "fine")) == "fine"
    for breakers, counted in ((sync, {Outcome.IGNORED}), (asynchronous, {Outcome.IGNORED, Outcome.SUCCESS})):
        assert breakers["payments"].state is State.CLOSED
        outcomes = breakers.statistics()["demo/payments"].outcomes
        assert {outcome for outcome, count in outcomes.items() if count} <= counted
    asyncio.run(asynchronous.close())


def test_errors_are_ours() -> None:
    error = CallNotPermittedError("demo/payments", 1.5)
    assert isinstance(error, CircuitBreakerError)
    again = pickle.loads(pickle.dumps(error))
    assert (again.breaker, again.retry_after_seconds) == ("demo/payments", 1.5)
    assert str(CallNotPermittedError("demo/payments", None)) == "demo/payments is held open"


def test_reading_never_asks(world) -> None:
    """State and snapshot are there before Redis was asked, and are brought up to date behind the caller."""
    caller = world.breaker()
    caller.open()
    payments = world.client()["payments"]
    assert payments.state is State.CLOSED
    until_state(payments, State.OPEN)
    snapshot = payments.snapshot()
    assert (snapshot.source, snapshot.degraded, snapshot.policy) == (Source.SHARED, False, POLICY)
    assert snapshot.order == caller.observe().order
    assert 50 < snapshot.retry_after_seconds <= 60


def test_after_close_calls_pass_and_nothing_is_sent(world) -> None:
    caller, breakers = world.breaker(), world.client()
    payments = breakers["payments"]
    charge = payments(lambda: 5)
    assert charge() == 5
    breakers.close()
    breakers.close()
    assert caller.observe().totals.successes == 1, "the last outcomes were sent"
    assert [charge(), payments.call(lambda: 6), breakers["other"].call(lambda: 7)] == [5, 6, 7]
    with payments.permit():
        pass
    payments.record_failure()
    assert payments.state is State.CLOSED
    assert caller.observe().totals.successes == 1


def test_a_hook_that_fails_does_no_harm(world) -> None:
    world.breaker()

    def hook(_event: object) -> None:
        raise RuntimeError

    payments = world.client(on_event=hook)["payments"]
    fail(payments, 3)
    until_state(payments, State.OPEN)
    with pytest.raises(CallNotPermittedError):
        payments.call(int)
