"""The commands that only look: list, describe, explain."""

from typing import Annotated

import typer
from rich.text import Text

from circuitbreaker_cli import options, terminal
from circuitbreaker_cli.breakers import describing, explaining, listing
from circuitbreaker_cli.breakers.view import View
from circuitbreaker_cli.formats import Form, Output, as_json, as_list, as_name, as_yaml
from circuitbreaker_cli.marks import state_text
from circuitbreaker_cli.remote import store
from circuitbreaker_contract.protocol import MAX_HISTORY
from circuitbreaker_contract.state import State


def list_(
    states: Annotated[list[State] | None, typer.Option("--state", "-s", help="Only those in this state.")] = None,
    sort: Annotated[listing.Sort, typer.Option("--sort", help="What comes first.")] = listing.Sort.NAME,
    selector: Annotated[str, typer.Option("--selector", "-l", help="Only those with these labels.")] = "",
    output: options.TableOutput = Output.TABLE,
    all_namespaces: options.AllNamespaces = False,
    namespace: options.Namespace = "",
    context: options.Context = "",
    kubeconfig: options.Kubeconfig = "",
) -> None:
    """The breakers of a namespace, or of all: state, reason, counters, when they are tried again."""
    api = options.kubectl(context, kubeconfig, namespace, all_namespaces=all_namespaces)
    views = listing.chosen(api.breakers(selector=selector), states or [], sort)
    match output:
        case Output.JSON:
            terminal.show(Text(as_json(as_list(views))))
        case Output.YAML:
            terminal.show(Text(as_yaml(as_list(views))))
        case Output.NAME:
            terminal.show(*(Text(as_name(each)) for each in views))
        case Output.TABLE | Output.WIDE if views:
            wide = output is Output.WIDE
            terminal.show(
                listing.table(views, terminal.now_ms(), namespaces=all_namespaces, wide=wide, glyphs=terminal.glyphs())
            )
        case _:
            terminal.say("no breakers found")


def describe(
    name: options.Name,
    output: options.TextOutput = Form.TEXT,
    namespace: options.Namespace = "",
    context: options.Context = "",
    kubeconfig: options.Kubeconfig = "",
    redis_url: options.RedisUrl = "",
) -> None:
    """One breaker on one page: policy in force, counters, next steps; with Redis, probes and counts of now."""
    view = options.kubectl(context, kubeconfig, namespace).breaker(name)
    if _printed(view, output):
        return
    snapshot = None
    if store.is_given(redis_url):
        snapshot = store.observe(redis_url, view.namespace, view.name, history=MAX_HISTORY)
    terminal.show(describing.page(view, terminal.now_ms(), snapshot, terminal.glyphs()))


def explain(
    name: options.Name,
    output: options.TextOutput = Form.TEXT,
    namespace: options.Namespace = "",
    context: options.Context = "",
    kubeconfig: options.Kubeconfig = "",
) -> None:
    """Why a breaker is in its state: the rule with its numbers, or the person; and what changes it, and when."""
    view = options.kubectl(context, kubeconfig, namespace).breaker(name)
    now_ms = terminal.now_ms()
    why, steps = explaining.why(view, now_ms), explaining.next_steps(view, now_ms)
    if output is not Form.TEXT:
        told = {"namespace": view.namespace, "name": view.name, "state": view.state, "why": why, "next": steps}
        terminal.show(Text(as_json(told) if output is Form.JSON else as_yaml(told)))
        return
    terminal.show(Text.assemble(view.full_name, " is ", state_text(view.state, terminal.glyphs())))
    terminal.show(terminal.lines(why, "  "), Text("What comes next:"), terminal.lines(steps, "  "))


def _printed(view: View, output: Form) -> bool:
    if output is Form.TEXT:
        return False
    raw = dict(view.raw)
    raw["metadata"] = {name: value for name, value in raw["metadata"].items() if name != "managedFields"}
    terminal.show(Text(as_json(raw) if output is Form.JSON else as_yaml(raw)))
    return True
