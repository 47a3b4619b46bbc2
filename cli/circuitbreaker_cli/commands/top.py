"""The command top: what needs a look now, again and again on a terminal, once for programs."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from circuitbreaker_cli import options, terminal
from circuitbreaker_cli.breakers import ranking
from circuitbreaker_cli.breakers.ranking import Board, Look, Sort
from circuitbreaker_cli.errors import CommandError
from circuitbreaker_cli.marks import Glyphs, state_text
from circuitbreaker_cli.remote import streaming
from circuitbreaker_cli.remote.kubectl import Kubectl
from circuitbreaker_cli.remote.redis_url import is_given
from circuitbreaker_contract.state import State
from circuitbreaker_operator import times

if TYPE_CHECKING:
    from circuitbreaker_cli.remote.store import Reader

_AROUND: Final = 4  # lines of the screen that are no rows
_TICK_SECONDS: Final = 1.0  # lengths of time go on between two looks
_ONCE_SECONDS: Final = 1.0  # between the two looks that a speed needs


@dataclass(frozen=True, slots=True)
class _Source:
    """Where figures come from: resources, and Redis where it is named."""

    api: Kubectl
    selector: str
    redis: "Reader | None"

    async def look(self) -> list[Look]:
        views = await streaming.breakers(self.api, selector=self.selector, managed_fields=self.redis is None)
        if self.redis is None:
            return [ranking.of_status(each) for each in views]
        seen = await self.redis.observe([(each.namespace, each.name) for each in views])
        return [
            ranking.of_redis(view, snapshot) if snapshot and snapshot.uid == view.uid else ranking.of_status(view)
            for view, snapshot in zip(views, seen, strict=True)
        ]


def command(
    sort: Annotated[Sort, typer.Option("--sort", help="What comes first.")] = Sort.REFUSED,
    states: Annotated[list[State] | None, typer.Option("--state", "-s", help="Only those in this state.")] = None,
    once: Annotated[bool, typer.Option("--once", help="One table, and no more; so it is without a terminal.")] = False,
    every: Annotated[float, typer.Option("--every", help="Seconds between two looks.", min=0.5)] = 2.0,
    selector: Annotated[str, typer.Option("--selector", "-l", help="Only those with these labels.")] = "",
    all_namespaces: options.AllNamespaces = False,
    namespace: options.Namespace = "",
    context: options.Context = "",
    kubeconfig: options.Kubeconfig = "",
    redis_url: options.RedisUrl = "",
) -> None:
    api = options.kubectl(context, kubeconfig, namespace, all_namespaces=all_namespaces)

    async def work() -> None:
        async with AsyncExitStack() as stack:
            redis = None
            if is_given(redis_url):
                from circuitbreaker_cli.remote import store  # noqa: PLC0415 - see there

                redis = await stack.enter_async_context(store.reader(redis_url))
            source, screen = _Source(api, selector, redis), _Screen(sort, tuple(states or ()), all_namespaces)
            screen.board.take(await source.look(), terminal.now_ms())
            if once or not terminal.is_live():
                if redis is not None:
                    await asyncio.sleep(_ONCE_SECONDS)
                    screen.board.take(await source.look(), terminal.now_ms())
                screen.print()
            else:
                await _live(source, screen, every)

    streaming.run(work())


@dataclass(frozen=True, slots=True)
class _Cut:
    """What is too wide loses its end, as in `top`; rich would take a part of each column."""

    inner: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in console.render_lines(self.inner, options.update(max_width=terminal.WIDEST), pad=False):
            yield from Segment.adjust_line_length(line, options.max_width)
            yield Segment.line()


class _Screen:
    """What is shown, and how."""

    def __init__(self, sort: Sort, states: Sequence[State], namespaces: bool) -> None:
        self.board = Board()
        self.trouble = ""
        self._sort, self._states, self._namespaces = sort, states, namespaces

    def print(self) -> None:
        rows, now_ms = self.board.rows(self._sort, self._states), terminal.now_ms()
        if rows:
            terminal.show(ranking.table(rows, now_ms, namespaces=self._namespaces, glyphs=terminal.glyphs()))
        else:
            terminal.say("no breakers found")

    def sort_otherwise(self) -> None:
        sorts = list(Sort)
        self._sort = sorts[(sorts.index(self._sort) + 1) % len(sorts)]

    def drawn(self, height: int, glyphs: Glyphs) -> Group:
        rows, now_ms = self.board.rows(self._sort, self._states), terminal.now_ms()
        fit = max(1, height - _AROUND)
        shown = rows if len(rows) <= fit else rows[: fit - 1]
        more = [Text(f"and {len(rows) - len(shown)} more", "dim")] if len(shown) < len(rows) else []
        made = ranking.table(shown, now_ms, namespaces=self._namespaces, glyphs=glyphs)
        parts: list[RenderableType] = [self._head(now_ms, glyphs), self._foot(), Text(), made, *more]
        return Group(*(_Cut(each) for each in parts))

    def _head(self, now_ms: int, glyphs: Glyphs) -> Text:
        text = Text()
        for state, count in self.board.counts().items():
            text.append(f"{count} ").append(state_text(state, glyphs)).append("   ")
        return text.append(times.to_seconds_text(now_ms))

    def _foot(self) -> Text:
        if self.trouble:
            return Text(f"not current: {self.trouble}", "bold")
        return Text(f"sorted by {self._sort.value}; s: otherwise, q: end", "dim")


async def _live(source: _Source, screen: _Screen, every: float) -> None:
    """Until q, or until it is cancelled."""
    news: asyncio.Queue[str] = asyncio.Queue()
    looker = asyncio.create_task(_look_on(source, screen, every, news))
    glyphs, console = terminal.glyphs(), terminal.console(whole_lines=False)
    try:
        with _keys(news.put_nowait), Live(console=console, screen=True, auto_refresh=False) as live:
            while not looker.done():
                live.update(screen.drawn(console.height, glyphs), refresh=True)
                with suppress(TimeoutError):
                    pressed = await asyncio.wait_for(news.get(), _TICK_SECONDS)
                    if "q" in pressed.lower():
                        return
                    for _ in range(pressed.count("s")):
                        screen.sort_otherwise()
        await looker
    finally:
        looker.cancel()
        await asyncio.gather(looker, return_exceptions=True)


async def _look_on(source: _Source, screen: _Screen, every: float, news: "asyncio.Queue[str]") -> None:
    """Looks again and again; what fails is shown, beside what was seen last."""
    while True:
        await asyncio.sleep(every)
        try:
            screen.board.take(await source.look(), terminal.now_ms())
            screen.trouble = ""
        except CommandError as error:
            screen.trouble = str(error).partition("\n")[0]
        news.put_nowait("")


@contextmanager
def _keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """Calls with each key while it lasts, where somebody can press one; leaves the terminal as it was."""
    try:
        import termios  # noqa: PLC0415
        import tty  # noqa: PLC0415
    except ImportError:  # Windows, where Ctrl-C ends it
        yield
        return
    try:
        keyboard = sys.stdin.fileno()
        before = termios.tcgetattr(keyboard)
    except (OSError, ValueError, termios.error):
        yield
        return
    loop = asyncio.get_running_loop()

    def read() -> None:
        some = os.read(keyboard, 64)
        if some:
            pressed(some.decode(errors="replace"))
        else:
            loop.remove_reader(keyboard)

    try:
        tty.setcbreak(keyboard, termios.TCSANOW)
        loop.add_reader(keyboard, read)
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSANOW, before)
