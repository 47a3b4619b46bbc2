"""The examples as processes: started as their own files say, on loopback ports."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from circuitbreaker_local.processes import Process, free_port
from circuitbreaker_local.waiting import wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
START_SECONDS = 20.0


def environment(**variables: object) -> dict[str, str]:
    """This process' own without what would set up a client or a proxy, and `variables`."""
    ours = {
        name: text for name, text in os.environ.items() if not name.startswith("CB_") and "proxy" not in name.lower()
    }
    return ours | {"PYTHONUNBUFFERED": "1"} | {name: str(value) for name, value in variables.items()}


def uvicorn(app: str, port: int) -> list[str]:
    return [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]


@contextmanager
def program(
    command: list[str | Path], folder: Path, log: Path, variables: Mapping[str, object], port: int, ready: str
) -> Iterator[httpx.Client]:
    """A running program, and a client for it; back when `ready` is answered."""
    with (
        Process(command, log=log, env=environment(**variables), cwd=folder) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=5) as client,
    ):
        wait_until(
            lambda: not process.alive or answers(client, ready), timeout_seconds=START_SECONDS, what=f"{ready} of {log}"
        )
        assert process.alive, process.obituary()
        yield client


@contextmanager
def service(
    app: str, folder: Path, log: Path, variables: Mapping[str, object], ready: str, port: int | None = None
) -> Iterator[httpx.Client]:
    """An ASGI app under uvicorn, on a free port where none is given."""
    port = port or free_port()
    with program([*uvicorn(app, port)], folder, log, variables, port, ready) as client:
        yield client


def answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code < 500
    except httpx.TransportError:
        return False


def command_of(dockerfile: Path) -> list[str]:
    """The words of CMD."""
    line = next(line for line in dockerfile.read_text().splitlines() if line.startswith("CMD "))
    words: list[str] = json.loads(line.removeprefix("CMD "))
    return words


def retry_after(answer: httpx.Response) -> Any:
    """The whole seconds of Retry-After."""
    return int(answer.headers["Retry-After"])
