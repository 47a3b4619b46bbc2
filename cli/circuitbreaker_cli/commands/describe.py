"""The command describe: one breaker on one page."""

from rich.text import Text

from circuitbreaker_cli import options, terminal
from circuitbreaker_cli.breakers import describing
from circuitbreaker_cli.breakers.view import View
from circuitbreaker_cli.errors import CommandError, Exit
from circuitbreaker_cli.formats import Form, as_json, as_yaml
from circuitbreaker_cli.remote.redis_url import is_given
from circuitbreaker_cli.words import FOREIGN
from circuitbreaker_contract.protocol import MAX_HISTORY


def command(
    name: options.Name,
    output: options.TextOutput = Form.TEXT,
    namespace: options.Namespace = "",
    context: options.Context = "",
    kubeconfig: options.Kubeconfig = "",
    redis_url: options.RedisUrl = "",
) -> None:
    view = options.kubectl(context, kubeconfig, namespace).breaker(name)
    if _printed(view, output):
        return
    snapshot, failed = None, None
    if is_given(redis_url):
        from circuitbreaker_cli.remote import store  # noqa: PLC0415 - see there

        try:
            snapshot = store.observe(redis_url, view.namespace, view.name, history=MAX_HISTORY)
        except CommandError as error:
            if error.code is not Exit.FAILURE:
                raise
            failed = error
    if snapshot is not None and snapshot.uid != view.uid:
        terminal.say(f"what Redis holds is {FOREIGN}; the page is what the status last said")
        snapshot = None
    terminal.show(describing.page(view, terminal.now_ms(), snapshot, terminal.glyphs()))
    if failed is not None:
        raise CommandError(f"{failed}\nso the page is what the status last said") from failed


def _printed(view: View, output: Form) -> bool:
    if output is Form.TEXT:
        return False
    raw = dict(view.raw)
    raw["metadata"] = {name: value for name, value in raw["metadata"].items() if name != "managedFields"}
    terminal.show(Text(as_json(raw) if output is Form.JSON else as_yaml(raw)))
    return True
