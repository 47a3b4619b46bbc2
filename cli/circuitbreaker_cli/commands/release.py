"""The command release: the end of an override."""

from circuitbreaker_cli import options, terminal
from circuitbreaker_cli.breakers import patches
from circuitbreaker_cli.commands._write import carry_out


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
    view = api.breaker(name)
    if not view.override:
        terminal.say(f"{view.full_name} has no override; there is nothing to release")
        return
    carry_out(api, view, patches.release, yes=yes, dry_run=dry_run, force=force, wait=wait)
