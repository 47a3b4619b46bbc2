"""The command hold-closed: an override that permits every call."""

from circuitbreaker_cli import options
from circuitbreaker_cli.commands._write import hold
from circuitbreaker_contract.state import State


def command(
    name: options.Name,
    reason: options.Reason,
    for_: options.For = "",
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    wait: options.Wait = 10.0,
    namespace: options.Namespace = "",
    context: options.Context = "",
    kubeconfig: options.Kubeconfig = "",
) -> None:
    api = options.kubectl(context, kubeconfig, namespace)
    hold(api, name, State.CLOSED, reason, for_, yes=yes, dry_run=dry_run, force=force, wait=wait)
