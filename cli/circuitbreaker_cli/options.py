"""The flags that several commands share, named as kubectl names its own."""

from typing import Annotated

import typer

from circuitbreaker_cli.formats import Form, Output
from circuitbreaker_cli.remote.kubectl import Kubectl

Name = Annotated[str, typer.Argument(help="The breaker's name.", metavar="NAME")]
Context = Annotated[str, typer.Option("--context", help="The context of the kubeconfig to use.")]
Kubeconfig = Annotated[str, typer.Option("--kubeconfig", help="The kubeconfig file to use.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The namespace; else the context's.")]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Breakers of every namespace.")]
TableOutput = Annotated[Output, typer.Option("--output", "-o", help="How to print.")]
TextOutput = Annotated[Form, typer.Option("--output", "-o", help="How to print.")]
RedisUrl = Annotated[
    str, typer.Option("--redis-url", help="Where Redis is; else CB_REDIS_URL and its companions.", show_default=False)
]
Reason = Annotated[str, typer.Option("--reason", help="Why, in one line: shown in status, Events and history.")]
For = Annotated[str, typer.Option("--for", help="How long, like 10m or 1h30m; without it, until it is released.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Let the API server check it, and change nothing.")]
Force = Annotated[bool, typer.Option("--force", help="Write although it cannot come into force now.")]
Wait = Annotated[float, typer.Option("--wait", help="Seconds to wait for it to be in force; 0: do not.", min=0)]


def kubectl(context: str, kubeconfig: str, namespace: str, *, all_namespaces: bool = False) -> Kubectl:
    return Kubectl(context, namespace, kubeconfig, all_namespaces)
