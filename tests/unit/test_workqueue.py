"""Keys that wait: coalesced, one worker a key, urgent first, failures later and later."""

import asyncio

from circuitbreaker_operator.metrics import Metrics
from circuitbreaker_operator.workqueue import Backoff, Pending, WorkQueue


def drained(pending: Pending[str], now: float = 0.0) -> list[str]:
    keys = []
    while (taken := pending.take(now)) is not None:
        keys.append(taken[0])
    return keys


def test_a_key_waits_once() -> None:
    """However often it is added; the first place in the line counts."""
    pending: Pending[str] = Pending()
    assert [pending.add(key, 0.0) for key in "abab"] == [True, True, False, False]
    assert drained(pending) == ["a", "b"]


def test_a_key_is_never_worked_on_twice_at_once() -> None:
    """Added meanwhile, it comes once more, after the work is done."""
    pending: Pending[str] = Pending()
    pending.add("a", 0.0)
    assert pending.take(0.0) == ("a", 0, 0.0)
    assert pending.add("a", 1.0) is True
    assert pending.add("a", 1.0) is False
    assert pending.take(1.0) is None
    pending.done("a", 2.0)
    assert pending.take(5.0) == ("a", 0, 3.0)


def test_urgent_keys_go_first_and_pull_their_key_along() -> None:
    """A key that becomes urgent leaves its old place; one that is urgent stays so."""
    pending: Pending[str] = Pending(levels=3)
    for key, level in (("a", 2), ("b", 1), ("c", 2), ("c", 0), ("b", 2)):
        pending.add(key, 0.0, level)
    assert drained(pending) == ["c", "b", "a"]


def test_delayed_keys_ripen() -> None:
    """The earliest delay counts; being added now makes the delay void."""
    pending: Pending[str] = Pending()
    pending.add_at("a", 5.0)
    pending.add_at("a", 9.0)
    pending.add_at("b", 7.0)
    assert (pending.next_at(), pending.take(4.9)) == (5.0, None)
    assert drained(pending, 5.0) == ["a"]
    pending.add("b", 6.0)
    assert drained(pending, 6.0) == ["b"]
    assert (pending.next_at(), drained(pending, 100.0)) == (None, [])


def test_what_comes_later_can_be_hurried() -> None:
    """At its level, once; what was worked on or waits already stays as it is."""
    pending = Pending[str](levels=2)
    pending.add_at("counters", 50.0, 1)
    pending.add_at("open", 60.0, 0)
    pending.add("now", 0.0, 1)
    assert pending.hurry(1.0, lambda key: key == "open") == ["open"]
    assert (pending.next_at(), pending.hurry(1.0)) == (1.0, ["counters", "open"])
    assert drained(pending, 1.0) == ["open", "now", "counters"]
    assert (pending.next_at(), drained(pending, 100.0)) == (None, [])


def test_a_dropped_key_does_not_come_back() -> None:
    """Its breaker is gone."""
    pending: Pending[str] = Pending()
    pending.add("a", 0.0)
    pending.add_at("b", 5.0)
    for key in "ab":
        pending.drop(key)
    assert ("a" in pending, "b" in pending, drained(pending, 10.0)) == (False, False, [])


def test_backoff_doubles_to_its_limit_with_jitter() -> None:
    """Each key for itself; success starts it over."""
    backoff: Backoff[str] = Backoff(first=1.0, longest=10.0, chance=lambda: 0.0)
    assert [backoff.next("a") for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert backoff.next("b") == 1.0
    backoff.forget("a")
    assert backoff.next("a") == 1.0
    assert Backoff(first=1.0, chance=lambda: 1.0).next("a") == 0.75


async def test_a_queue_repeats_what_fails_and_works_in_parallel() -> None:
    """Sixteen at once, a failing key after a pause, and nothing while the gate is closed."""
    seen: list[str] = []
    busy = most = 0

    async def handle(key: str) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0)
        busy -= 1
        seen.append(key)
        if key == "bad" and seen.count("bad") < 3:
            raise ValueError("no")

    gate = asyncio.Event()
    queue = WorkQueue(
        handle, metrics=Metrics().queue("test"), gate=gate, workers=16, backoff=Backoff(first=0.001, longest=0.002)
    )
    keys = [str(number) for number in range(40)] + ["bad"]
    for key in keys:
        queue.add(key)
    task = asyncio.create_task(queue.run())
    await asyncio.sleep(0.01)
    assert seen == []
    gate.set()
    async with asyncio.timeout(5):
        while seen.count("bad") < 3:
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert sorted(set(seen)) == sorted(keys)
    assert most == 16
