"""A program that a person has chosen by a variable of the environment."""

import os
from collections.abc import Callable
from pathlib import Path

from circuitbreaker_local.errors import LocalError


def chosen_program(variable: str, unfit: Callable[[Path], str]) -> Path | None:
    """The program that `variable` names; None when it is not set. Raises LocalError for one that will not do.

    `unfit` says why a program will not do, and nothing when it will.
    """
    chosen = os.environ.get(variable)
    if not chosen:
        return None
    if why_not := unfit(Path(chosen)):
        raise LocalError(f"{variable}: {why_not}")
    return Path(chosen).absolute()
