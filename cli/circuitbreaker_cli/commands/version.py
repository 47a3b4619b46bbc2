"""The command version."""

import sys
from importlib.metadata import version


def command() -> None:
    sys.stdout.write(version("circuitbreakers") + "\n")
