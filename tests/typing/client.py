"""The public types, pinned: checked by mypy --strict and pyright, never run."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, assert_type

from circuitbreaker_client import (
    AsyncCircuitBreaker,
    AsyncCircuitBreakers,
    AsyncPermit,
    BreakerSnapshot,
    BreakerStatistics,
    CallNotPermittedError,
    CallRefused,
    CircuitBreaker,
    CircuitBreakers,
    Degraded,
    Event,
    OutcomesDropped,
    Permit,
    Policy,
    Recovered,
    State,
    StateChanged,
)

breakers = CircuitBreakers.from_env(strict=True)
assert_type(breakers, CircuitBreakers)
payments = breakers["payments"]
assert_type(payments, CircuitBreaker)
assert_type(payments.state, State)
assert_type(payments.snapshot(), BreakerSnapshot)
assert_type(breakers.statistics(), Mapping[str, BreakerStatistics])
assert_type(breakers.snapshots(), Mapping[str, BreakerSnapshot])
assert_type(breakers.close(), None)

policy = Policy(5, 30_000, 3, 3, 30_000)
CircuitBreakers(redis_url="redis://localhost", namespace="shop", policy=policy, state_sync=False)
CircuitBreakers(redis_urls="redis://localhost")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
CircuitBreakers(strict="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@payments
def charge(amount: int, *, currency: str = "EUR") -> str:
    return f"{amount} {currency}"


assert_type(charge(5, currency="CHF"), str)
charge("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@payments
async def refund(amount: int) -> bytes:
    return b""


@payments(failure=(OSError,), ignore=lambda error: "404" in str(error))
def with_rules(amount: int) -> str:
    return str(amount)


assert_type(with_rules(5), str)


@payments(fallback=None)
def or_none(amount: int) -> str:
    return str(amount)


assert_type(or_none(5), str | None)


def cached(amount: int) -> float:
    return float(amount)


@payments(fallback=cached, result=lambda value: value == "")
def or_cached(amount: int) -> str:
    return str(amount)


assert_type(or_cached(5), str | float)


def by_region(region: str) -> str | None:
    return f"payments-{region}" if region else None


@payments(name=by_region)
def keyed(region: str) -> int:
    return 5


assert_type(keyed("eu"), int)
payments(falback=None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
payments(failure="OSError")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]

assert_type(payments.call(charge, 5, currency="CHF"), str)
payments.call(charge, "5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
with payments.permit(failure=OSError) as permit:
    assert_type(permit, Permit)
    assert_type(permit.is_probe, bool)
    permit.success()
assert_type(payments.check_state(), State)
payments.record_success(0.2)
payments.record_failure()

async_breakers = AsyncCircuitBreakers(namespace="shop")
async_payments = async_breakers["payments"]
assert_type(async_payments, AsyncCircuitBreaker)


@async_payments
async def async_charge(amount: int) -> str:
    return str(amount)


async def async_cached(amount: int) -> float:
    return float(amount)


@async_payments(fallback=async_cached)
async def async_or_cached(amount: int) -> str:
    return str(amount)


@async_payments(fallback=0)
async def async_or_zero(amount: int) -> str:
    return str(amount)


async def asynchronous() -> None:
    assert_type(await refund(5), bytes)
    assert_type(await async_charge(5), str)
    assert_type(await async_or_cached(5), str | float)
    assert_type(await async_or_zero(5), str | int)
    assert_type(await async_payments.call(async_charge, 5), str)
    async with async_payments.permit() as permit:
        assert_type(permit, AsyncPermit)
    assert_type(await async_payments.permit(), AsyncPermit)
    assert_type(await async_payments.check_state(), State)
    await async_breakers.close()


def on_event(event: Event) -> None:
    match event:
        case StateChanged():
            assert_type(event.state, State)
        case CallRefused():
            assert_type(event.retry_after_seconds, float | None)
        case Degraded():
            assert_type(event.reason, str)
        case Recovered():
            assert_type(event.after_seconds, float)
        case OutcomesDropped():
            assert_type(event.count, int)


CircuitBreakers(on_event=on_event)
assert_type(CallNotPermittedError("shop/payments", None).retry_after_seconds, float | None)

plain: Callable[[int], str] = with_rules
coroutine: Callable[[int], Coroutine[Any, Any, bytes]] = refund
