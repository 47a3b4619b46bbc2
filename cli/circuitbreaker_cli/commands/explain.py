"""The command explain: why a breaker is in its state."""

from rich.text import Text

from circuitbreaker_cli import options, terminal
from circuitbreaker_cli.breakers import explaining
from circuitbreaker_cli.formats import Form, as_json, as_yaml
from circuitbreaker_cli.marks import state_text


def command(
    name: options.Name,
    output: options.TextOutput = Form.TEXT,
    namespace: options.Namespace = "",
    context: options.Context = "",
    kubeconfig: options.Kubeconfig = "",
) -> None:
    view = options.kubectl(context, kubeconfig, namespace).breaker(name)
    now_ms = terminal.now_ms()
    why, steps = explaining.why(view, now_ms), explaining.next_steps(view, now_ms)
    if output is not Form.TEXT:
        told = {"namespace": view.namespace, "name": view.name, "state": view.state, "why": why, "next": steps}
        terminal.show(Text(as_json(told) if output is Form.JSON else as_yaml(told)))
        return
    terminal.show(Text.assemble(view.full_name, " is ", state_text(view.state, terminal.glyphs())))
    terminal.show(terminal.lines(why, "  "), Text("What comes next:"), terminal.lines(steps, "  "))
