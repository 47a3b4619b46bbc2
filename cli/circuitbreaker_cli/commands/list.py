"""The command list: a table of breakers, or the objects themselves."""

from typing import Annotated

import typer
from rich.text import Text

from circuitbreaker_cli import options, terminal
from circuitbreaker_cli.breakers import listing
from circuitbreaker_cli.formats import Output, as_json, as_list, as_name, as_yaml
from circuitbreaker_contract.state import State


def command(
    states: Annotated[list[State] | None, typer.Option("--state", "-s", help="Only those in this state.")] = None,
    sort: Annotated[listing.Sort, typer.Option("--sort", help="What comes first.")] = listing.Sort.NAME,
    selector: Annotated[str, typer.Option("--selector", "-l", help="Only those with these labels.")] = "",
    output: options.TableOutput = Output.TABLE,
    all_namespaces: options.AllNamespaces = False,
    namespace: options.Namespace = "",
    context: options.Context = "",
    kubeconfig: options.Kubeconfig = "",
) -> None:
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
