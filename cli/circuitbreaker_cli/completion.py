"""What kubectl asks when somebody presses Tab behind `kubectl breaker`: a program `kubectl_complete-breaker`.

It gets the words so far, the last one unfinished, and prints a candidate a line, then a line `:4`: no file names. (The
protocol is that of cobra, which kubectl is built with.) A Tab must not fail or hang, so trouble means no candidates.
Typer's own completion is for shells that ask the program itself, and its parts are private. Each press is a process of
its own, so what only some of them need is imported by those.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from itertools import pairwise
from typing import Any, Final, get_args, get_type_hints

from circuitbreaker_cli.catalogue import COMMANDS, function
from circuitbreaker_cli.errors import CommandError

_NO_FILES: Final = ":4"
_SECONDS: Final = 3.0


def main() -> None:
    """The entry point of the console script."""
    *before, unfinished = sys.argv[1:] or [""]
    for each in candidates(before, unfinished):
        sys.stdout.write(f"{each}\n")
    sys.stdout.write(f"{_NO_FILES}\n")


def candidates(before: Sequence[str], unfinished: str) -> list[str]:
    """Commands; of a command its flags, the values of the last one, or names of breakers."""
    if not before:
        found = list(COMMANDS)
    elif before[0] not in COMMANDS:
        found = []
    else:
        found = _of_command(get_type_hints(function(before[0]), include_extras=True), before, unfinished)
    return [each for each in found if each.startswith(unfinished)]


def _of_command(hints: Mapping[str, Any], before: Sequence[str], unfinished: str) -> list[str]:
    """From the annotations of the command's function: `Annotated[kind, typer.Option(flags)]`."""
    from typer.models import OptionInfo  # noqa: PLC0415

    flags: dict[str, object] = {}
    for hint in hints.values():
        for option in getattr(hint, "__metadata__", ()):
            if isinstance(option, OptionInfo):
                # Within Annotated there is no default, and typer keeps the first flag in its place.
                names = (option.default, *(option.param_decls or ()))
                flags |= dict.fromkeys([each for each in names if isinstance(each, str)], hint.__origin__)
    if unfinished.startswith("-"):
        return [flag for flag in flags if flag.startswith("--")]
    kind = flags.get(before[-1], bool)
    if kind is not bool:
        return _values(kind)
    if "name" in hints or "names" in hints:
        with suppress(CommandError):
            return _names(before)
    return []


def _values(kind: Any) -> list[str]:
    """The words of an enumeration, also of a list of them."""
    if isinstance(kind, type) and not get_args(kind):
        return [str(each.value) for each in kind] if issubclass(kind, Enum) else []
    return [word for inner in get_args(kind) for word in _values(inner)]


def _names(before: Sequence[str]) -> list[str]:
    from circuitbreaker_cli.remote.kubectl import RESOURCE, Kubectl  # noqa: PLC0415
    from circuitbreaker_cli.words import safe  # noqa: PLC0415

    flags = dict(pairwise(before))
    namespace = flags.get("-n", flags.get("--namespace", ""))
    api = Kubectl(flags.get("--context", ""), namespace, flags.get("--kubeconfig", ""))
    text = api.run("get", RESOURCE, "--output=name", seconds=_SECONDS)
    return [safe(line.rpartition("/")[2]) for line in text.splitlines()]
