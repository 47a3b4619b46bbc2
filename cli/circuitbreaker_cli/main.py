"""The program: its commands, and what an error ends with."""

import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from circuitbreaker_cli.catalogue import COMMANDS, function
from circuitbreaker_cli.errors import CommandError, Exit


class _Late(TyperGroup):
    """A command is made when it is called; until then there is only what the help of the program says of it."""

    # Any: typer brings a click of its own, whose types have no public name.
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, made(name) if name else None, rest


app = typer.Typer(
    cls=_Late,
    name="kubectl breaker",
    help="Circuit breakers at the terminal. Exit codes: docs/cli.md.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _help in COMMANDS.items():
    app.command(_name, help=_help)(lambda: None)


def made(name: str) -> Any:
    """The command with its parameters, from its function."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name, help=COMMANDS[name])(function(name))
    return typer.main.get_command(alone)


def _show_version(asked: bool) -> None:
    if asked:
        function("version")()
        raise typer.Exit


@app.callback()
def _program(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help=COMMANDS["version"])
    ] = False,
) -> None: ...


def main() -> NoReturn:
    """The entry point of the console script; ends the process."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal of another encoding still gets its answer
    try:
        app()
    except CommandError as error:
        from circuitbreaker_cli import terminal  # noqa: PLC0415 - rich, for what is rare

        terminal.complain(error)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    sys.exit(Exit.FINE)
