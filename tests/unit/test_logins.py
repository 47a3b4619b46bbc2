"""Kopf's logins: each refused one comes later, and none leaves a session open."""

import aiohttp

from circuitbreaker_operator.handlers import Logins
from circuitbreaker_operator.workqueue import Backoff


class Clock:
    """Time that passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


async def test_refused_logins_come_with_growing_pauses() -> None:
    clock = Clock()
    logins = Logins(clock, clock.sleep, Backoff(first=0.5, longest=5.0, chance=lambda: 0.0))
    for _ in range(7):
        await logins.pause()
    assert clock.slept == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    clock.now += 3_600  # it was good, and has expired
    await logins.pause()
    assert len(clock.slept) == 6
    await logins.pause()
    assert clock.slept[6:] == [0.5]


async def test_one_session_at_a_time() -> None:
    logins = Logins()
    sessions = [aiohttp.ClientSession() for _ in range(3)]
    for number, session in enumerate(sessions):
        await logins.use(session)
        assert [each.closed for each in sessions] == [before < number for before in range(3)]
    await logins.aclose()
    assert all(each.closed for each in sessions)
    await Logins().aclose()
