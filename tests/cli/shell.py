"""Runs `kubectl-breaker` as a user would: by itself, or in a pseudo-terminal."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("kubectl-breaker")


@dataclass(frozen=True)
class Done:
    """How it ended."""

    code: int
    out: str
    err: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Shell:
    """`environment` is added to, or with None taken from, what a user's shell has."""

    kubeconfig: Path
    programs: Path
    namespace: str
    environment: dict[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CB_", "NO_COLOR", "COLUMNS", "LINES"))
        }
        path = os.pathsep.join([str(self.programs), str(PROGRAM.parent), os.environ["PATH"]])
        return kept | {"KUBECONFIG": str(self.kubeconfig), "PATH": path, "TERM": "xterm-256color"} | self.environment

    def command(self, *arguments: str) -> list[str]:
        return [str(PROGRAM), arguments[0], "-n", self.namespace, *arguments[1:]]

    def run(self, *arguments: str, code: int = 0) -> Done:
        """Without a terminal; holds the exit code."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return Done(done.returncode, done.stdout, done.stderr)

    def at_terminal(
        self, *arguments: str, answer: str = "", meanwhile: Callable[[], object] = lambda: None, code: int = 0
    ) -> Done:
        """In a pseudo-terminal; `answer` is typed when a question stands there, after what is done `meanwhile`.

        Output and errors come together.
        """
        inner, outer = pty.openpty()
        process = subprocess.Popen(
            self.command(*arguments), env=self.variables(), stdin=outer, stdout=outer, stderr=outer, close_fds=True
        )
        os.close(outer)
        seen, asked, deadline = b"", False, time.monotonic() + 60
        while time.monotonic() < deadline:
            if not select.select([inner], [], [], 1.0)[0]:
                continue
            try:
                some = os.read(inner, 65_536)
            except OSError:  # the other side is closed
                break
            if not some:
                break
            seen += some
            if b"[y/N]" in seen and not asked:
                asked = True
                meanwhile()
                os.write(inner, f"{answer}\n".encode())
        os.close(inner)
        assert process.wait(10) == code, seen.decode()
        return Done(code, seen.decode())
