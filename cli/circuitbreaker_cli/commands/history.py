"""The command history: every transition of a breaker that Redis keeps; without Redis the last ones of its status."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from circuitbreaker_cli import options, terminal
from circuitbreaker_cli.breakers import transitions
from circuitbreaker_cli.breakers.transitions import Entry
from circuitbreaker_cli.breakers.view import View, part
from circuitbreaker_cli.errors import CommandError
from circuitbreaker_cli.formats import History, as_json, as_yaml
from circuitbreaker_cli.remote.kubectl import Kubectl
from circuitbreaker_cli.remote.redis_url import NEEDED, is_given
from circuitbreaker_cli.words import FOREIGN, safe
from circuitbreaker_contract.protocol import MAX_HISTORY
from circuitbreaker_contract.state import Reason

_FORCED: Final = "CircuitForced"
_SET_BY: Final = re.compile(r"held \w+(?: until \S+)?, set by (.{1,128}?): ")  # as the operator's events.py words it


def command(
    name: options.Name,
    limit: Annotated[
        int, typer.Option("--limit", "-L", help="At most so many, the newest.", min=1, max=MAX_HISTORY)
    ] = 20,
    output: Annotated[History, typer.Option("--output", "-o", help="How to print.")] = History.TABLE,
    namespace: options.Namespace = "",
    context: options.Context = "",
    kubeconfig: options.Kubeconfig = "",
    redis_url: options.RedisUrl = "",
) -> None:
    api = options.kubectl(context, kubeconfig, namespace)
    view = api.breaker(name)
    now_ms = terminal.now_ms()
    if is_given(redis_url):
        from circuitbreaker_cli.remote import store  # noqa: PLC0415 - see there

        # One more than is shown tells whether there are older ones.
        snapshot = store.observe(redis_url, view.namespace, view.name, history=min(limit + 1, MAX_HISTORY))
        foreign = snapshot.uid != view.uid
        if foreign:
            terminal.say(f"this is {FOREIGN}")
        entries = transitions.of_snapshot(snapshot)
        now_ms, damaged, source = snapshot.now_ms, snapshot.history_damaged, "redis"
    else:
        (entries, damaged), source, foreign = transitions.of_status(view), "status", False
        terminal.say(f"from the status, which has the last few; for all of them {NEEDED}")
    older = len(entries) + damaged > limit
    entries = entries[-limit:]
    entries = transitions.named(entries, view, _managers(api, view, entries))
    _print(view, entries, now_ms, output, {"source": source, "foreign": foreign, "damaged": damaged})
    if damaged:
        terminal.say(f"{damaged} {'entry is' if damaged == 1 else 'entries are'} damaged and left out")
    if older and output in {History.TABLE, History.WIDE}:
        terminal.say(f"there are older ones: --limit {MAX_HISTORY} shows all that are kept")


def _print(view: View, entries: Sequence[Entry], now_ms: int, output: History, about: Mapping[str, Any]) -> None:
    if output in {History.JSON, History.YAML}:
        told: dict[str, Any] = {"namespace": view.namespace, "name": view.name, **about}
        told["transitions"] = [transitions.told(each) for each in entries]
        terminal.show(Text(as_json(told) if output is History.JSON else as_yaml(told)))
    elif entries:
        wide = output is History.WIDE
        terminal.show(transitions.table(entries, now_ms, wide=wide, glyphs=terminal.glyphs()))
    else:
        terminal.say(f"{view.full_name} has no transitions yet")


def _managers(api: Kubectl, view: View, entries: Iterable[Entry]) -> dict[tuple[int, int], str]:
    """Who set an override, of the Events that live: their names tell of which transition they are.

    Nothing where Events may not be read.
    """
    orders = [transitions.order(each, view) for each in entries if each.reason == Reason.FORCED]
    if not orders:
        return {}
    from circuitbreaker_operator.events import base36  # noqa: PLC0415 - with the operator's models and settings

    chosen = f"--field-selector=involvedObject.uid={view.uid},reason={_FORCED}"
    try:
        events = Kubectl(api.context, view.namespace, api.kubeconfig).read("get", "events", chosen).get("items") or []
    except CommandError:
        return {}
    said = {part(each, "metadata").get("name"): str(each.get("message", "")) for each in events}
    stem = f"{view.name}.{view.uid[:8]}"
    matches = {order: _SET_BY.match(said.get(f"{stem}.{base36(order[0])}.{order[1]}", "")) for order in orders}
    return {order: safe(match[1], 128) for order, match in matches.items() if match}
