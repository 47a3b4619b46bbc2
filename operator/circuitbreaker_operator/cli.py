"""The command `circuitbreaker-operator`. Exit codes: 0 fine, 1 failure, 2 settings that cannot be, 3 lost the lease."""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
import textwrap
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final, NoReturn

from circuitbreaker_contract import library
from circuitbreaker_contract.errors import CircuitBreakerError
from circuitbreaker_operator import logs, purge
from circuitbreaker_operator.app import STOP_SECONDS, Operator
from circuitbreaker_operator.credentials import forget_files
from circuitbreaker_operator.errors import LeaseLostError, SettingsError
from circuitbreaker_operator.fence import OVER, Fence, FencedSelector
from circuitbreaker_operator.memory import keep_no_holes
from circuitbreaker_operator.settings import Settings, table, unknown_variables

logger = logging.getLogger(__name__)

FINE: Final = 0
FAILURE: Final = 1
BAD_SETTINGS: Final = 2
LEASE_LOST: Final = 3
_SAME_SIGNAL_SECONDS: Final = 1.0  # process groups and wrappers deliver one twice


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point of the console script; ends the process."""
    given = _parser().parse_args(arguments)
    if given.command == "version":
        _say(version("circuitbreakers"))
        sys.exit(FINE)
    try:
        settings = Settings.load()
        logs.set_up(settings.log_format, settings.log_level)
        for sentence in unknown_variables():
            logger.warning("%s", sentence)
        code = _run(settings) if given.command == "run" else asyncio.run(_purge(settings, given))
    except SettingsError as error:
        what = "start" if given.command == "run" else given.command
        sys.stderr.write(f"circuitbreaker-operator cannot {what}:\n{textwrap.indent(str(error), '  ')}\n")
        code = BAD_SETTINGS
    except CircuitBreakerError as error:
        sys.stderr.write(f"circuitbreaker-operator: {error}\n")
        code = FAILURE
    except KeyboardInterrupt:
        code = FAILURE
    _leave(code)


def _run(settings: Settings) -> int:
    """Serves in a loop in which nothing runs once a lease is over."""
    keep_no_holes()
    _collect_garbage_less_often()
    fence = Fence(_lost)
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(FencedSelector(fence))) as runner:
        return runner.run(_serve(settings, fence))


def _collect_garbage_less_often() -> None:
    """What is loaded by now stays, and breakers make many objects and few cycles: a fifth less processor time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def _lost(why: object = OVER) -> NoReturn:
    """Ends at once: an orderly stop would have to write."""
    logger.critical("leading no more: %s; ending, to start again as a standby", why)
    _leave(LEASE_LOST)


def _leave(code: int) -> NoReturn:
    """Ends the process: threads of libraries that hang must not keep one that has said goodbye."""
    forget_files()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def settings_help(width: int = 100) -> str:
    """Every setting with its default and what it means."""
    lines = ["settings, from the environment (durations like 500ms, 30s or 1m30s; a bare number is seconds):"]
    for name, default, text in table():
        lines.append(f"  {name}" + (f"  (default {default})" if default else ""))
        lines += textwrap.wrap(text, width, initial_indent="      ", subsequent_indent="      ")
    lines.append("The API server is that of the pod's service account, or of KUBECONFIG.")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="circuitbreaker-operator",
        description="Keeps circuit breakers in Redis as the CircuitBreaker resources of a cluster say.",
        epilog=settings_help(),
        formatter_class=shape,
    )
    parser.add_argument("--version", action="version", version=version("circuitbreakers"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="run | purge | version")
    commands.add_parser(
        "run",
        help="serve until stopped",
        description="Watches the CircuitBreaker resources and serves their breakers in Redis until it is stopped.",
        epilog=settings_help(),
        formatter_class=shape,
    )
    purging = commands.add_parser(
        "purge",
        help="remove this installation's breakers from Redis",
        description="Removes the breakers of this owner and their fields in the shared hash of states; nobody else's.",
        epilog=settings_help(),
        formatter_class=shape,
    )
    purging.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")
    purging.add_argument("--yes", action="store_true", help="do not ask")
    commands.add_parser("version", help="print the version")
    return parser


async def _serve(settings: Settings, fence: Fence) -> int:
    loop = asyncio.get_running_loop()
    operator = Operator(settings, fence)
    task = asyncio.create_task(operator.run(), name="operator")
    asked: asyncio.Future[signal.Signals] = loop.create_future()
    either: set[asyncio.Future[Any]] = {task, asked}

    asked_at = 0.0

    def stop(number: signal.Signals) -> None:
        nonlocal asked_at
        if not asked.done():
            asked_at = loop.time()
            asked.set_result(number)
        elif loop.time() - asked_at >= _SAME_SIGNAL_SECONDS:
            logger.warning("stopping at once", extra={"signal": number.name})
            _leave(FAILURE)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    extra = {"version": version("circuitbreakers"), "library": library.VERSION, "digest": library.digest()}
    logger.info("circuitbreaker-operator", extra=extra)
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not asked.done():
        return _crashed(task)
    logger.info("stopping", extra={"signal": asked.result().name})
    task.cancel()
    until = loop.time() + STOP_SECONDS - 0.5
    while not (await asyncio.wait({task}, timeout=0.5))[0] and loop.time() < until:
        # A library may lose a cancellation while its server hangs: the parts are asked again until they hear it.
        for each in asyncio.all_tasks() - {task, asyncio.current_task()}:
            each.cancel()
    if not task.done():
        waiting = ", ".join(sorted(f"{each.get_name()} ({_place(each)})" for each in asyncio.all_tasks()))
        logger.error("could not stop in time, leaving anyway", extra={"waiting": waiting})
        _leave(FAILURE)
    if not task.cancelled() and task.exception() is not None:
        return _crashed(task)
    for number in (signal.SIGTERM, signal.SIGINT):  # else one that comes twice ends the interpreter while it winds up
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    logger.info("stopped")
    return FINE


def _place(task: asyncio.Task[Any]) -> str:
    """Where a task waits: the function and line of its innermost frame."""
    frames = task.get_stack(limit=1)
    return f"{frames[0].f_code.co_name}:{frames[0].f_lineno}" if frames else "done"


def _crashed(task: asyncio.Task[None]) -> int:
    """Says why the operator ended by itself; raises SettingsError when that was it."""
    error = task.exception()
    first: BaseException | None = error
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if isinstance(first, SettingsError):
        raise first
    if isinstance(first, LeaseLostError):
        _lost(first)
    trace = None if isinstance(first, CircuitBreakerError) else error
    logger.critical("the operator cannot go on: %s", first, exc_info=trace)
    return FAILURE


async def _purge(settings: Settings, given: argparse.Namespace) -> int:
    owner = await purge.owner_of(settings)
    store, task = await purge.open_store(settings)
    try:
        found = await purge.find(store, settings, owner)
        where = f"in Redis at {settings.redis_address} under {settings.key_prefix}"
        _say(f"{len(found.mine)} breakers of owner {owner} {where}; {found.others} of others stay")
        for key in found.unreadable:
            _say(f"  {settings.keys.breaker(key)} cannot be read and stays")
        if await purge.listeners(settings):
            again = "an operator seems to run here, and will make again what its resources ask for; stop it first"
            sys.stderr.write(f"warning: {again}\n")
        if given.dry_run:
            for key, _ in found.mine:
                _say(f"  would remove {key}")
            return FINE
        if found.mine and not given.yes and not _agreed():
            return FAILURE
        _say(f"removed {await purge.remove(store, settings, owner, found)} breakers")
        return FINE
    finally:
        task.cancel()
        await store.close()


def _agreed() -> bool:
    if not sys.stdin.isatty():
        sys.stderr.write("nothing removed: nobody is there to ask; repeat with --yes\n")
        return False
    # Under asyncio the first Ctrl-C would only cancel a task, which cannot happen while we wait here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        agreed = input("remove them? [y/N] ").strip().lower() in {"y", "yes"}
    except (EOFError, KeyboardInterrupt):
        _say("")
        agreed = False
    finally:
        signal.signal(signal.SIGINT, before)
    if not agreed:
        sys.stderr.write("nothing removed\n")
    return agreed


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
