"""The command watch: transitions as they happen, one line each, from kubectl's watch, renewed whenever it ends."""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Final

import typer
from rich.text import Text

from circuitbreaker_cli import options, terminal
from circuitbreaker_cli.breakers import changes
from circuitbreaker_cli.breakers.changes import Change, Ledger
from circuitbreaker_cli.breakers.view import View
from circuitbreaker_cli.errors import CommandError, Exit, KubectlError
from circuitbreaker_cli.formats import Lines
from circuitbreaker_cli.remote import streaming
from circuitbreaker_cli.remote.kubectl import Kubectl, checked_name
from circuitbreaker_cli.words import safe
from circuitbreaker_contract.durations import parse_duration_ms
from circuitbreaker_contract.state import State

_AT_ONCE_SECONDS: Final = 5.0  # a kubectl that fails sooner has not lost a connection: it never had one
_PAUSES_SECONDS: Final = (0.5, 1.0, 2.0, 5.0, 10.0)  # before the next try; the last one again and again


@dataclass(frozen=True, slots=True)
class _Asked:
    """What to watch and how to tell it."""

    api: Kubectl
    names: frozenset[str]
    states: frozenset[str]
    selector: str
    output: Lines

    @property
    def scope(self) -> dict[str, str]:
        """What the API server is asked for; of one breaker a right to that one is enough."""
        return {"selector": self.selector, "name": next(iter(self.names)) if len(self.names) == 1 else ""}

    async def list(self) -> list[View]:
        found = await streaming.breakers(self.api, managed_fields=True, **self.scope)
        return [each for each in found if self.concerns(each)]

    def concerns(self, view: View) -> bool:
        return not self.names or view.name in self.names

    def tell(self, found: Sequence[Change], width: int) -> None:
        for each in found:
            if self.states and each.entry.after not in self.states:
                continue
            if self.output is Lines.JSON:
                terminal.show(Text(json.dumps(changes.told(each))))
                continue
            if each.missed:
                terminal.say(f"{each.full_name}: {each.missed} transitions before this one are in its status no more")
            namespaces = self.api.all_namespaces
            terminal.show(changes.line(each, namespaces=namespaces, width=width, glyphs=terminal.glyphs()))


def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Breakers; without any, all of them.")
    ] = None,
    states: Annotated[
        list[State] | None, typer.Option("--state", "-s", help="Only transitions into this state.")
    ] = None,
    initial: Annotated[bool, typer.Option("--initial", help="Begin with the states as they are.")] = False,
    for_: Annotated[str, typer.Option("--for", help="How long, like 10m; without it, until Ctrl-C.")] = "",
    selector: Annotated[str, typer.Option("--selector", "-l", help="Only breakers with these labels.")] = "",
    output: Annotated[Lines, typer.Option("--output", "-o", help="How to print: a line each.")] = Lines.TEXT,
    all_namespaces: options.AllNamespaces = False,
    namespace: options.Namespace = "",
    context: options.Context = "",
    kubeconfig: options.Kubeconfig = "",
) -> None:
    api = options.kubectl(context, kubeconfig, namespace, all_namespaces=all_namespaces)
    wanted = frozenset(checked_name(each) for each in names or [])
    asked = _Asked(api, wanted, frozenset(each.value for each in states or []), selector, output)
    streaming.run(_watch(asked, initial=initial, seconds=_seconds(for_)))


async def _watch(asked: _Asked, *, initial: bool, seconds: float | None) -> None:
    """Until the time is over, which begins when it knows what there is; else until it is cancelled."""
    views = await asked.list()
    width = changes.name_width(views, namespaces=asked.api.all_namespaces)
    missing = ", ".join(sorted(safe(each) for each in asked.names - {each.name for each in views}))
    summary = changes.summary(views, terminal.glyphs(stderr=True))
    terminal.say(f"watching {summary}" + (f"; not there yet: {missing}" if missing else ""))
    now_ms = terminal.now_ms()
    if initial:
        asked.tell([changes.initial(each, now_ms) for each in views], width)
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            await _follow(asked, Ledger(views), width)
    except TimeoutError:
        if not limit.expired():
            raise


async def _follow(asked: _Asked, ledger: Ledger, width: int) -> None:
    """Watches anew whenever a watch has ended; raises KubectlError only where not even the first one begins."""
    trouble, failures, first = "", 0, True
    while True:
        began = time.monotonic()
        try:
            if not first:
                # A list tells what is there no more; the watch that follows does not.
                asked.tell(ledger.listed(await asked.list(), terminal.now_ms()), width)
                if trouble:
                    terminal.say("the watch goes on")
                    trouble = ""
            await _told(asked, ledger, width)
            failures = 0
        except KubectlError as error:
            at_once = time.monotonic() - began < _AT_ONCE_SECONDS
            if first and at_once:
                raise
            failures = failures + 1 if at_once else 0
            if not trouble:
                trouble = str(error).splitlines()[-1]  # before that kubectl tells of each of its tries
                terminal.say(f"the watch is lost, and is tried again: {trouble}")
        first = False
        await asyncio.sleep(_PAUSES_SECONDS[min(failures, len(_PAUSES_SECONDS) - 1)])


async def _told(asked: _Asked, ledger: Ledger, width: int) -> None:
    """Until the watch ends."""
    async with aclosing(streaming.events(asked.api, **asked.scope)) as events:
        async for kind, view in events:
            if asked.concerns(view):
                found = ledger.gone(view, terminal.now_ms()) if kind == "DELETED" else ledger.seen(view)
                asked.tell(found, width)


def _seconds(for_: str) -> float | None:
    try:
        return parse_duration_ms(for_) / 1_000 if for_ else None
    except ValueError as error:
        raise CommandError(f"--for: {error}", Exit.USAGE) from None
