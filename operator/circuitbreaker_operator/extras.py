"""What a program says when it was installed without the libraries that it stands on.

A console script is installed with the distribution, whatever extras were asked for. So its entry point imports the
program within `needed`, and itself nothing that an extra brings.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed(program: str, extra: str) -> Iterator[None]:
    """Imports within may fail for want of `extra`: one line says what to install, and the process ends with 1."""
    try:
        yield
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("circuitbreaker_"):
            raise  # a part of ours: no extra brings it
        sys.exit(f"{program} needs the package {error.name}: pip install 'circuitbreakers[{extra}]'")
