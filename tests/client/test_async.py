"""The same surface for asyncio; cancellation, several loops."""

import asyncio
import gc
import inspect
import threading
from dataclasses import replace

import pytest

from circuitbreaker_client import AsyncCircuitBreakers, CallNotPermittedError, State
from tests.client.world import SHORT, until
from tests.contract.callers import Caller


@pytest.fixture
async def breakers(world):
    async with world.async_client() as breakers:
        yield breakers


async def until_state(breaker, state: State) -> None:
    await asyncio.to_thread(until, lambda: breaker.state is state, f"{breaker.snapshot()} to be {state}")


async def broken() -> None:
    raise OSError


async def fail(breaker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(OSError):
            await breaker.call(broken)


async def half_open(caller: Caller, breaker) -> None:
    await breaker.call(asyncio.sleep, 0)
    caller.open()
    await asyncio.to_thread(caller.until_half_open)
    await until_state(breaker, State.HALF_OPEN)


async def test_the_whole_surface(world, breakers: AsyncCircuitBreakers) -> None:
    caller = world.breaker(policy=SHORT)
    payments = breakers["payments"]

    @payments
    async def charge(amount: int) -> int:
        """Charges."""
        await asyncio.sleep(0)
        return amount

    @payments
    def parse(text: str) -> int:
        return int(text)

    assert inspect.iscoroutinefunction(charge)
    assert not inspect.iscoroutinefunction(parse)
    assert (await charge(5), parse("6"), charge.__doc__) == (5, 6, "Charges.")
    assert await payments.call(charge.__wrapped__, 7) == 7
    async with payments.permit() as permit:
        permit.ignore()
    permit = await payments.permit()
    permit.success()
    assert await payments.check_state() is State.CLOSED
    payments.record_success()
    await breakers.flush()
    totals = caller.observe().totals
    assert (totals.successes, totals.ignored) == (5, 1)

    await fail(payments, 3)
    await until_state(payments, State.OPEN)
    for refused in (charge(5), payments.call(charge), payments.check_state(), payments.permit()):
        with pytest.raises(CallNotPermittedError):
            await refused
    with pytest.raises(CallNotPermittedError):
        async with payments.permit():
            pytest.fail("not permitted")
    await asyncio.to_thread(until, lambda: payments.snapshot().retry_after_seconds == 0)
    assert await charge(8) == 8
    await until_state(payments, State.CLOSED)


async def test_fallbacks(world, breakers: AsyncCircuitBreakers) -> None:
    world.breaker()
    payments = breakers["payments"]
    await fail(payments, 3)
    await until_state(payments, State.OPEN)

    async def cached(amount: int) -> str:
        return f"cached {amount}"

    for fallback, answer in ((cached, "cached 5"), (lambda amount: amount + 1, 6), (None, None)):
        assert await payments(fallback=fallback)(broken_with)(5) == answer


async def broken_with(_amount: int) -> None:
    raise OSError


async def test_a_result_can_be_a_failure(world, breakers: AsyncCircuitBreakers) -> None:
    caller = world.breaker()

    async def status(code: int) -> int:
        return code

    protected = breakers["payments"](result=lambda code: code >= 500)(status)
    assert [await protected(200), await protected(503)] == [200, 503]
    await breakers.flush()
    totals = caller.observe().totals
    assert (totals.successes, totals.failures) == (1, 1)


async def test_a_cancelled_call_is_ignored(world, breakers: AsyncCircuitBreakers) -> None:
    """By a cancellation, and by a time limit."""
    caller, entered = world.breaker(), asyncio.Semaphore(0)

    @breakers["payments"]
    async def hang() -> None:
        entered.release()
        await asyncio.Event().wait()

    limit = asyncio.timeout(None)

    async def limited() -> None:
        async with limit:
            await hang()

    task, timed = asyncio.create_task(hang()), asyncio.create_task(limited())
    for _ in range(2):
        await entered.acquire()
    task.cancel()
    limit.reschedule(asyncio.get_running_loop().time())
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        await timed
    await breakers.flush()
    assert caller.observe().totals.ignored == 2


async def test_a_cancelled_probe_gives_its_lease_back(world, breakers: AsyncCircuitBreakers) -> None:
    caller, payments = world.breaker(policy=SHORT), breakers["payments"]
    await half_open(caller, payments)
    task = asyncio.create_task(payments(asyncio.sleep)(60))
    await asyncio.to_thread(until, lambda: caller.observe().probes_live == 1, "the probe")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(until, lambda: caller.observe().probes_live == 0, "its end")
    assert caller.observe().probes.ignored == 1


async def test_cancelled_while_it_asks(world, breakers: AsyncCircuitBreakers) -> None:
    """The probe that is granted to nobody goes back at once."""
    caller, payments = world.breaker(policy=SHORT), breakers["payments"]
    await half_open(caller, payments)
    for _ in range(20):
        task = asyncio.create_task(payments.call(asyncio.sleep, 60))
        await asyncio.sleep(0)  # it has begun to ask
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def all_back() -> bool:
        seen = caller.observe()
        return seen.probes_live == 0 and seen.probes.granted == seen.probes.ignored

    await asyncio.to_thread(until, all_back, "all that was granted to be given back")
    assert await payments.call(asyncio.sleep, 0, "fine") == "fine"


async def test_many_tasks_share_one_question(world, breakers: AsyncCircuitBreakers) -> None:
    """HalfOpen with its slots full: those who wait are answered by one acquire."""
    caller, payments = world.breaker(policy=SHORT), breakers["payments"]
    await half_open(caller, payments)
    caller.acquire("taken")
    world.reset_commands()
    answers = await asyncio.gather(*(payments.call(asyncio.sleep, 0) for _ in range(50)), return_exceptions=True)
    assert all(isinstance(answer, CallNotPermittedError) for answer in answers)
    assert all(0 < answer.retry_after_seconds <= 0.25 for answer in answers)
    await breakers.flush()
    assert caller.observe().totals.not_permitted == 50
    assert world.commands()["fcall"] <= 3, "one acquire, and a report of the 49"


def test_several_loops(world) -> None:
    """One client, made outside of any loop, in several loops at once and one after the other; no task is left."""
    caller = world.breaker()
    breakers = world.async_client()
    sleep = breakers["payments"](asyncio.sleep)
    left: list[int] = []

    async def work() -> None:
        for _ in range(50):
            await sleep(0)
        left.append(len(asyncio.all_tasks()))

    threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(work())
    asyncio.run(breakers.close())
    assert caller.observe().totals.successes == 250
    assert left == [1] * 5


def test_a_loop_that_is_closed_while_a_task_asks(own_world) -> None:
    """Its answer comes to nobody; the client goes on."""
    own_world.breaker()
    breakers = own_world.async_client()
    own_world.server.pause()
    loop = asyncio.new_event_loop()
    task = loop.create_task(breakers["payments"].call(asyncio.sleep, 0))
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    own_world.server.resume()

    async def work() -> int:
        async with breakers:
            return await breakers["payments"].call(asyncio.sleep, 0, 5)

    assert asyncio.run(work()) == 5


async def test_check_state_in_a_task_leaves_its_makers_alone(world, breakers: AsyncCircuitBreakers) -> None:
    """A task begins with a copy of its maker's context."""
    caller, payments = world.breaker(policy=replace(SHORT, half_open_limit=2)), breakers["payments"]
    await half_open(caller, payments)
    assert await payments.check_state() is State.HALF_OPEN
    assert await asyncio.create_task(payments.check_state()) is State.HALF_OPEN
    gc.collect()
    await asyncio.to_thread(until, lambda: caller.observe().probes.ignored == 1, "the task's own probe to go back")
    payments.record_success()
    await until_state(payments, State.CLOSED)
    probes = caller.observe().probes
    assert (probes.granted, probes.succeeded, probes.ignored) == (2, 1, 1)


async def test_a_keyed_call_that_ends_after_its_breaker_was_forgotten(world) -> None:
    caller = world.breaker()
    async with world.async_client(max_breakers=1) as breakers:
        end = asyncio.Event()
        task = asyncio.create_task(breakers["default"](name=lambda: "payments")(end.wait)())
        await asyncio.to_thread(until, lambda: list(breakers) == ["demo/payments"], "the call to begin")
        breakers["other"]
        awake = breakers._engine._rhythm._awake
        await asyncio.to_thread(until, lambda: not list(breakers) and not awake, "its breaker to be forgotten")
        end.set()
        assert await task
        await asyncio.to_thread(until, lambda: caller.observe().totals.successes == 1, "the report")
