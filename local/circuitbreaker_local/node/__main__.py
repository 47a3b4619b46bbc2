"""`python -m circuitbreaker_local.node [--image NAME:TAG ...] COMMAND...`: a command beside a real node.

The command runs inside the node's network, with KUBECONFIG set and kubectl on PATH; when it ends, so does the node. A
shell is a command too.
"""

import argparse
import os
import shutil
import sys

from circuitbreaker_local import interrupts
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.node import shipped
from circuitbreaker_local.node.enclosure import must_be_allowed
from circuitbreaker_local.node.images import archives
from circuitbreaker_local.node.packages import ensure_packages, must_be_root
from circuitbreaker_local.node.programs import node_binaries
from circuitbreaker_local.progress import Report

OPERATOR_TAGS = ("dev", "next")  # what the kind overlay asks for, and what it can be rolled to


def main() -> int:
    """Does not return when all is there: it becomes the process around the node."""
    parser = argparse.ArgumentParser(prog="python -m circuitbreaker_local.node", description=__doc__)
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run beside the node; a shell when left out")
    command = parser.parse_args().command or [os.environ.get("SHELL") or "/bin/sh"]
    interrupts.listen()
    report = Report()
    try:
        must_be_root()
        must_be_allowed()  # before anything is installed and built for nothing
        _must_exist(command[0])
        ensure_packages(report)
        binaries = node_binaries(report)
        operators = [shipped.operator(tag) for tag in OPERATOR_TAGS]
        images = [shipped.pause(binaries.pause), shipped.redis(), shipped.sample(), *operators]
        files = archives(images, report)
    except LocalError as error:
        report.say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    os.execv(  # noqa: S606 # no shell: the words go as they are
        sys.executable, [sys.executable, "-m", "circuitbreaker_local.node.inside", *map(str, files), "--", *command]
    )
    return 0


def _must_exist(program: str) -> None:
    if not shutil.which(program):
        raise LocalError(f"there is no {program} to run")


if __name__ == "__main__":
    sys.exit(main())
