"""How trip, hold-closed, release and reset change something: each the same way, `carry_out`."""

from collections.abc import Callable
from typing import Final

from circuitbreaker_cli import options, terminal
from circuitbreaker_cli.breakers import patches
from circuitbreaker_cli.breakers.patches import Change
from circuitbreaker_cli.breakers.view import View
from circuitbreaker_cli.errors import CommandError, ConflictError, Exit, KubectlError
from circuitbreaker_cli.remote.kubectl import MANAGER, Kubectl
from circuitbreaker_contract.durations import parse_duration_ms
from circuitbreaker_contract.state import State

_TRIES: Final = 10  # the operator writes its status meanwhile


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
        ahead_ms = 0
        if for_ms is not None:
            # `until` is for clocks of servers; one that is past already would have no effect at all.
            now_ms = terminal.now_ms()
            probe = patches.hold(view, state, reason, until_ms=now_ms + for_ms, now_ms=now_ms)
            server_ms = patches.written_ms(api.patch(view, probe.patch, dry_run=True), MANAGER)
            ahead_ms = patches.ahead_ms(now_ms, server_ms)
            if sentence := patches.skew(ahead_ms):
                terminal.say(f"note: {sentence}")

        def decide(seen: View) -> Change:
            now_ms = terminal.now_ms() + ahead_ms
            until_ms = None if for_ms is None else patches.until_after(for_ms, now_ms)
            return patches.hold(seen, state, reason, until_ms=until_ms, now_ms=now_ms)

        carry_out(api, view, decide, yes=yes, dry_run=dry_run, force=force, wait=wait)

    return command


def carry_out(
    api: Kubectl, view: View, decide: Callable[[View], Change], *, yes: bool, dry_run: bool, force: bool, wait: float
) -> None:
    """Looks what stands in the way, asks the API server, then the person; writes; waits for it to be in force.

    `decide` is asked once more after the person, who may have taken some time.
    """
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
    scoped = Kubectl(api.context, view.namespace, api.kubeconfig)
    change, written = _write(scoped, view, decide)
    if wait <= 0 or obstacle:
        terminal.say("written; it was not waited for")
        return
    _until_in_force(scoped, change, written, wait)
    end = f" until {change.until}" if change.until else ""
    terminal.say(f"{view.full_name}: {change.title}, and in force{end}")


def _until_in_force(api: Kubectl, change: Change, written: View, wait: float) -> None:
    """Raises CommandError, which says that it was written, where it is not in force in time."""
    trouble = ""

    def is_in_force() -> bool:
        nonlocal trouble
        try:
            seen = api.breaker(written.name, seconds=max(1.0, wait))
        except KubectlError as error:
            if error.not_found:
                raise _not_in_force(written, "it was deleted since") from None
            trouble = str(error)  # for a moment, perhaps
            return False
        trouble = ""
        if patches.in_force(change, written, seen):
            return True
        if sentence := patches.overtaken(change, written, seen):
            raise _not_in_force(written, sentence)
        return False

    if terminal.wait_until(is_in_force, wait):
        return
    if trouble:
        raise _not_in_force(written, f"whether it is in force could not be seen within {wait:g} s: {trouble}")
    told = f"was not in force within {wait:g} s; is an operator running? See: kubectl breaker explain {written.name}"
    raise _not_in_force(written, told)


def _not_in_force(written: View, sentence: str) -> CommandError:
    return CommandError(f"{written.full_name}: it was written, but {sentence}", Exit.NOT_YET)


def _write(api: Kubectl, agreed: View, decide: Callable[[View], Change]) -> tuple[Change, View]:
    """Writes the change to what is there now, which has to be what was agreed to but for its status.

    With the change, the breaker as it was written.
    """
    for _ in range(_TRIES):
        seen = api.breaker(agreed.name)
        if sentence := patches.moved(agreed, seen):
            raise CommandError(f"{agreed.full_name}: {sentence}; nothing was written, look again", Exit.NO_EFFECT)
        change = decide(seen)
        try:
            return change, api.patch(seen, change.patch, exact=True)
        except ConflictError:
            continue
    raise CommandError(f"{agreed.full_name} is being written all the time; nothing was written")
