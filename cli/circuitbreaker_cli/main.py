"""The program: every command by its name, and what an error ends with."""

import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from circuitbreaker_cli import terminal
from circuitbreaker_cli.commands import acting, doctor, history, reading, simulate, top, watch
from circuitbreaker_cli.errors import CommandError, Exit

app = typer.Typer(
    name="kubectl breaker",
    help="Circuit breakers at the terminal. Exit codes: docs/cli.md.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("list")(reading.list_)
app.command("describe")(reading.describe)
app.command("explain")(reading.explain)
app.command("history")(history.history)
app.command("watch")(watch.watch)
app.command("top")(top.top)
app.command("trip")(acting.trip)
app.command("hold-closed")(acting.hold_closed)
app.command("release")(acting.release)
app.command("reset")(acting.reset)
app.command("simulate")(simulate.simulate)
app.command("doctor")(doctor.doctor)


@app.command("version")
def version_() -> None:
    """The version of this program."""
    sys.stdout.write(version("circuitbreakers") + "\n")


def _show_version(asked: bool) -> None:
    if asked:
        version_()
        raise typer.Exit


@app.callback()
def _program(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="The version of this program.")
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
        terminal.complain(error)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    sys.exit(Exit.FINE)
