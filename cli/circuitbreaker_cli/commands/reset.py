"""The command reset: Closed, with nothing counted."""

import os

from circuitbreaker_cli import options, terminal
from circuitbreaker_cli.breakers import patches
from circuitbreaker_cli.commands._write import carry_out
from circuitbreaker_operator import times


def command(
    name: options.Name,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    wait: options.Wait = 10.0,
    namespace: options.Namespace = "",
    context: options.Context = "",
    kubeconfig: options.Kubeconfig = "",
) -> None:
    api = options.kubectl(context, kubeconfig, namespace)
    # New each time: two resets in one millisecond are two.
    token = f"{times.to_text(terminal.now_ms())}-{os.urandom(2).hex()}"
    view = api.breaker(name)
    carry_out(api, view, lambda seen: patches.reset(seen, token), yes=yes, dry_run=dry_run, force=force, wait=wait)
