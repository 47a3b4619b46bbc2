"""Places in flight: none of one namespace takes all of them, and no line is longer than it may be."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from circuitbreaker_operator.errors import NoPlaceError
from circuitbreaker_operator.places import Places


class Crowd:
    """Who asked for a place and has one until it is `over`."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self.inside: list[str] = []
        self.over = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, *namespaces: str) -> None:
        self.tasks += [asyncio.create_task(self._one(each)) for each in namespaces]
        await asyncio.sleep(0)

    async def _one(self, namespace: str) -> None:
        async with self._places.one(namespace):
            self.inside.append(namespace)
            await self.over.wait()

    async def refused(self) -> int:
        self.over.set()
        answers = await asyncio.gather(*self.tasks, return_exceptions=True)
        assert {type(each) for each in answers} <= {type(None), NoPlaceError}
        return sum(isinstance(each, NoPlaceError) for each in answers)


async def test_one_namespace_leaves_places_to_others() -> None:
    crowd = Crowd(Places(4, 3))
    await crowd.come(*["shop"] * 5, "bank", "zoo")
    assert sorted(crowd.inside) == ["bank", "shop", "shop", "shop"]
    assert await crowd.refused() == 0
    assert sorted(crowd.inside) == ["bank", *["shop"] * 5, "zoo"]


async def test_a_line_that_does_not_move_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times as many as places, of a namespace and of all: who comes then is sent away at once."""
    crowd = Crowd(Places(4, 2))
    loop, later = asyncio.get_running_loop(), 0.0
    monkeypatch.setattr(loop, "time", lambda real=loop.time: real() + later)
    await crowd.come(*["shop"] * 7)
    later = 1.0
    await crowd.come("shop", "bank")
    assert [task.done() for task in crowd.tasks] == [False] * 7 + [True, False], "nobody in the bank waits for long"
    await crowd.come(*["bank"] * 4)
    await crowd.come("zoo")
    assert [task.done() for task in crowd.tasks[8:]] == [False] * 5 + [True]
    assert await crowd.refused() == 2


async def test_a_line_that_moves_is_as_long_as_it_is() -> None:
    """Many open at once: whoever was sent away would come after others, whose news are older."""
    crowd = Crowd(Places(4, 2))
    await crowd.come(*["shop"] * 20, *["bank"] * 20)
    assert not any(task.done() for task in crowd.tasks)
    assert await crowd.refused() == 0
    assert len(crowd.inside) == 40


async def test_who_leaves_the_line_takes_no_place() -> None:
    """Nor does one that ends with an error; and of a namespace that is over nothing is kept."""
    places = Places(1, 1)
    crowd = Crowd(places)
    await crowd.come("shop", "shop")
    crowd.tasks[1].cancel()
    await asyncio.wait({crowd.tasks[1]})
    crowd.over.set()
    await crowd.tasks[0]
    with pytest.raises(ZeroDivisionError):
        async with places.one("shop"):
            1 / 0  # noqa: B018
    async with AsyncExitStack() as stack, asyncio.timeout(1):
        await stack.enter_async_context(places.one("bank"))
    assert (places._line, places._each) == ({}, {})
