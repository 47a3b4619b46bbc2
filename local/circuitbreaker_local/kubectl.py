"""Running kubectl."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from circuitbreaker_local.errors import LocalError


def run(kubectl: Path, arguments: Sequence[str], *, text: str | None, timeout_seconds: float) -> str:
    """What it prints; `text` is its standard input.

    Raises LocalError with what it complains about, and `subprocess.TimeoutExpired`.
    """
    done = subprocess.run(
        [kubectl, *arguments],
        input=text or "",
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
        env=os.environ | {"KUBECTL_KUBERC": "false"},  # the user's own preferences are for the user's clusters
    )
    if done.returncode != 0:
        said = " ".join(argument for argument in arguments if not argument.startswith(("--kubeconfig", "--cache-dir")))
        raise LocalError(f"kubectl {said}: {done.stderr.strip()}")
    return done.stdout
