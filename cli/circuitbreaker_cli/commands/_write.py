"""How trip, hold-closed, release and reset change something: each the same way, `carry_out`."""

from collections.abc import Callable

from circuitbreaker_cli import options, terminal
from circuitbreaker_cli.breakers import patches
from circuitbreaker_cli.breakers.patches import Change
from circuitbreaker_cli.breakers.view import View
from circuitbreaker_cli.errors import CommandError, Exit
from circuitbreaker_cli.remote.kubectl import MANAGER, Kubectl
from circuitbreaker_contract.durations import parse_duration_ms
from circuitbreaker_contract.state import State


def holding(state: State) -> Callable[..., None]:
    """The command that holds a breaker in that state."""

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
        try:
            for_ms = parse_duration_ms(for_) if for_ else None
        except ValueError as error:
            raise CommandError(f"--for: {error}", Exit.USAGE) from None
        if for_ms == 0:
            raise CommandError("--for: must be longer than nothing", Exit.USAGE)
        view = api.breaker(name)
        until_ms = None
        if for_ms is not None:
            # `until` is for clocks of servers; one that is past already would have no effect at all.
            now_ms = terminal.now_ms()
            probe = patches.hold(view, state, reason, until_ms=now_ms + for_ms, now_ms=now_ms)
            server_ms = patches.written_ms(api.patch(view, probe.patch, dry_run=True), MANAGER)
            until_ms = patches.until_after(for_ms, now_ms=now_ms, server_ms=server_ms)
            if sentence := patches.skew(now_ms, server_ms):
                terminal.say(f"note: {sentence}")

        def decide(seen: View) -> Change:
            return patches.hold(seen, state, reason, until_ms=until_ms, now_ms=terminal.now_ms())

        carry_out(api, view, decide, yes=yes, dry_run=dry_run, force=force, wait=wait)

    return command


def carry_out(
    api: Kubectl, view: View, decide: Callable[[View], Change], *, yes: bool, dry_run: bool, force: bool, wait: float
) -> None:
    """Looks what stands in the way, asks the API server, then the person; writes; waits for it to be in force."""
    change = decide(view)
    if (obstacle := patches.obstacle(view)) and not force:
        raise CommandError(f"{view.full_name}: {obstacle}\nnothing was written; --force writes it", Exit.NO_EFFECT)
    api.patch(view, change.patch, dry_run=True)  # who may not do it, or asks for what cannot be, hears of it before
    terminal.say(f"{view.full_name} (now {view.state}): {change.title}", *(f"  - {each}" for each in change.will))
    if obstacle:
        terminal.say(f"warning: {obstacle}")
    if dry_run:
        terminal.say("nothing was changed (--dry-run)")
        return
    terminal.confirm("Go on?", yes=yes)
    api.patch(view, change.patch)
    scoped = Kubectl(api.context, view.namespace, api.kubeconfig)
    if wait <= 0 or obstacle:
        terminal.say("written; it was not waited for")
    elif terminal.wait_until(lambda: patches.in_force(change, scoped.breaker(view.name)), wait):
        terminal.say(f"{view.full_name}: {change.title}, and in force")
    else:
        text = f"it was written, but was not in force within {wait:g} s; is an operator running?"
        raise CommandError(f"{view.full_name}: {text} See: kubectl breaker explain {view.name}", Exit.NOT_YET)
