"""kubectl while it runs: a watch, or a call that must not stop everything else. It never outlives who asked."""

import asyncio
import ctypes
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import IO, Any, Final

import typer

from circuitbreaker_cli.breakers.view import View, part
from circuitbreaker_cli.errors import KubectlError
from circuitbreaker_cli.remote.kubectl import RESOURCE, Kubectl, complaint

_LONGEST_LINE: Final = 16 * 2**20  # bytes; etcd takes objects of 1.5 MiB
_SECONDS: Final = 60.0  # for one call
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_GRACE_SECONDS: Final = 2.0  # for the kernel to bring news of the end


def run(work: Coroutine[Any, Any, None]) -> None:
    """As asyncio.run; SIGTERM, and SIGHUP of a terminal that goes, end it in the same orderly way as Ctrl-C."""
    caught: list[int] = []
    # Ctrl-C reaches kubectl too, and asyncio warns of a child that was gone before it was killed.
    logging.getLogger("asyncio").setLevel(logging.ERROR)

    async def guarded() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def end(number: int) -> None:
            caught.append(number)
            task.cancel()

        for name in ("SIGTERM", "SIGHUP"):
            with suppress(AttributeError, NotImplementedError):  # Windows
                number = getattr(signal, name)
                loop.add_signal_handler(number, end, number)
        await work

    try:
        asyncio.run(guarded())
    except asyncio.CancelledError:
        if not caught:
            raise
        raise typer.Exit(128 + caught[0]) from None


async def breakers(api: Kubectl, *, selector: str = "", name: str = "", managed_fields: bool = False) -> list[View]:
    """Those that Kubectl.breakers has; without waiting for it in the way of anything else."""
    flags = ["--output=json", *(["--show-managed-fields"] if managed_fields else [])]
    async with _started(api, "get", RESOURCE, *_scope(api, selector, name), *flags) as (process, errors):
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_SECONDS):
                text = await process.stdout.read()
                code = await process.wait()
        except TimeoutError:
            raise KubectlError(f"kubectl gave no answer within {_SECONDS:.0f} s") from None
        if code != 0:
            raise KubectlError(_said(errors))
    return [View(each) for each in _object(text).get("items") or []]


async def events(api: Kubectl, *, selector: str = "", name: str = "") -> AsyncGenerator[tuple[str, View]]:
    """What a watch tells, (ADDED, MODIFIED or DELETED, the object): first all there are, then changes.

    Ends when the API server ends it, as it does every now and then, or somebody kills kubectl; raises KubectlError when
    kubectl fails.
    """
    flags = ["--watch", "--output-watch-events", "--output=json", "--show-managed-fields"]
    async with _started(api, "get", RESOURCE, *_scope(api, selector, name), *flags) as (process, errors):
        assert process.stdout is not None
        while line := await process.stdout.readline():  # kubectl prints each of these in one
            found = _object(line)
            if found.get("type") in {"ADDED", "MODIFIED", "DELETED"}:
                yield str(found["type"]), View(part(found, "object"))
        if await process.wait() > 0:
            raise KubectlError(_said(errors))


@asynccontextmanager
async def _started(api: Kubectl, *arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, IO[bytes]]]:
    """The process and what it complains of. Whatever happens here, it has ended afterwards: it has nothing to lose."""
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *api.command(*arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=_LONGEST_LINE,
            preexec_fn=partial(_ends_with, os.getpid()) if sys.platform == "linux" else None,
        )
        try:
            yield process, errors
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_SECONDS):
                    await process.wait()


def _ends_with(parent: int) -> None:
    """In the child: the kernel ends it when we end without a chance to do it ourselves, as by SIGKILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # that was too late
        os._exit(1)


def _scope(api: Kubectl, selector: str, name: str) -> list[str]:
    flags = {"--selector": selector, "--field-selector": f"metadata.name={name}" if name else ""}
    scope = ["--all-namespaces"] if api.all_namespaces else []
    return scope + [f"{flag}={value}" for flag, value in flags.items() if value]


def _said(errors: IO[bytes]) -> str:
    errors.seek(0)
    return complaint(errors.read().decode(errors="replace"))


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise KubectlError(f"kubectl printed something that is no JSON: {error}") from error
    return found if isinstance(found, dict) else {}
