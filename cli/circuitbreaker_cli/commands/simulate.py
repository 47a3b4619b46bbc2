"""The command `simulate`: a policy over recorded or made traffic. It needs neither a cluster nor Redis."""

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from circuitbreaker_cli import options, terminal
from circuitbreaker_cli.errors import CommandError, Exit
from circuitbreaker_cli.formats import Form, as_json, as_yaml
from circuitbreaker_cli.simulation import plot, report
from circuitbreaker_cli.simulation.manifests import Manifest, read_manifest
from circuitbreaker_cli.simulation.report import Trial
from circuitbreaker_cli.simulation.runs import end_of, remarks, simulated
from circuitbreaker_cli.simulation.traces import read_trace
from circuitbreaker_cli.simulation.traffic import MOST_CALLS, START_MS, Call, Part, Plan, parse_parts
from circuitbreaker_cli.words import length, safe
from circuitbreaker_contract.durations import parse_duration_ms
from circuitbreaker_operator.errors import SettingsError
from circuitbreaker_operator.settings import Settings

_STDIN: Final = "-"
_FOR: Final = "5m"


class Expected(StrEnum):
    """What `--expect` holds the breaker of `-f` to."""

    OPENS = "opens"
    STAYS_CLOSED = "stays-closed"


@dataclass(frozen=True, slots=True)
class _Traffic:
    """Calls in order of time, and what there is to say about them."""

    title: str
    calls: Sequence[Call]
    start_ms: int
    end_ms: int
    dated: bool
    clients: int
    remarks: tuple[str, ...] = ()


def command(
    file: Annotated[str, typer.Option("--filename", "-f", help="The CircuitBreaker, as YAML or JSON; -: stdin.")],
    trace: Annotated[str, typer.Option("--trace", help="Recorded calls, as CSV: at,outcome,...; -: stdin.")] = "",
    rate: Annotated[float, typer.Option("--rate", help="Instead of a trace: calls a second.", min=0)] = 0.0,
    failures: Annotated[
        str, typer.Option("--failures", help="With --rate: which share fails, like 5% or 0-30s:1%,30s-60s:80%.")
    ] = "",
    slow: Annotated[str, typer.Option("--slow", help="With --rate: which share is slow, in the same form.")] = "",
    for_: Annotated[str, typer.Option("--for", help="With --rate: how long.", show_default=_FOR)] = "",
    clients: Annotated[
        int, typer.Option("--clients", help="With --rate: by how many processes.", min=1, max=1_000)
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", help="With --rate: another number, another chance.")] = 0,
    compare: Annotated[str, typer.Option("--compare", help="Another CircuitBreaker, beside the first.")] = "",
    expect: Annotated[Expected | None, typer.Option("--expect", help="Exit with 6 when -f does otherwise.")] = None,
    output: options.TextOutput = Form.TEXT,
) -> None:
    files = [each for each in (file, compare) if each]
    if [*files, trace].count(_STDIN) > 1:
        raise CommandError("standard input can be read once only; name a file for the others", Exit.USAGE)
    settings = _settings()
    manifests = [read_manifest(_text_of(each), _name(each), settings) for each in files]
    made = _plan(rate, failures, slow, for_, clients, seed)
    if bool(trace) == bool(made):
        raise CommandError("say which calls: --trace calls.csv, or --rate 50 --failures 10%; one of both", Exit.USAGE)
    traffic = _made(made) if made else _recorded(trace)
    tried = [_try(each, name, traffic) for each, name in zip(manifests, files, strict=True)]
    _show(traffic, tried, output)
    if expect is not None and (tried[0].run.openings > 0) is not (expect is Expected.OPENS):
        came = "it opened" if tried[0].run.openings else "it never opened"
        raise CommandError(f"{_name(file)}: {came}, and --expect says {expect.value}", Exit.UNEXPECTED)


def _try(manifest: Manifest, file: str, traffic: _Traffic) -> Trial:
    run = simulated(manifest.policy, traffic.calls, traffic.start_ms, traffic.end_ms)
    return Trial(_name(file), manifest.name, run, tuple(remarks(manifest.policy, traffic.clients)))


def _show(traffic: _Traffic, tried: Sequence[Trial], output: Form) -> None:
    for remark in (*traffic.remarks, *(f"{each.file}: {said}" for each in tried for said in each.remarks)):
        terminal.say(f"note: {remark}")
    if output is not Form.TEXT:
        told = report.told(tried, dated=traffic.dated)
        terminal.show(Text(as_json(told) if output is Form.JSON else as_yaml(told)))
        return
    glyphs = plot.glyphs_for(sys.stdout.encoding)
    terminal.show(Text(traffic.title))
    for each in tried:
        terminal.show(Text(""), report.heading(each), report.transitions(each.run, dated=traffic.dated))
        terminal.show(Text(""), plot.plot(each.run, glyphs))
    terminal.show(Text(""), report.totals(tried))


def _plan(rate: float, failures: str, slow: str, for_: str, clients: int, seed: int) -> Plan | None:
    """The traffic to make; None when nothing of it was asked for."""
    if not rate:
        if failures or slow or for_:
            raise CommandError("--failures, --slow and --for go with --rate, which says how many calls", Exit.USAGE)
        return None
    try:
        length_ms = parse_duration_ms(for_ or _FOR)
    except ValueError as error:
        raise CommandError(f"--for: {safe(error)}", Exit.USAGE) from None
    failing, slowed = _parts("--failures", failures, length_ms), _parts("--slow", slow, length_ms)
    plan = Plan(rate, length_ms, failing, slowed, clients=clients, seed=seed)
    if not 1 <= rate * length_ms / 1_000 <= MOST_CALLS:
        text = f"--rate {rate:g} for {for_ or _FOR} is {rate * length_ms / 1_000:.0f} calls"
        raise CommandError(f"{text}; it must be 1 to {MOST_CALLS}", Exit.USAGE)
    return plan


def _parts(flag: str, text: str, length_ms: int) -> tuple[Part, ...]:
    try:
        return parse_parts(text, length_ms) if text else ()
    except ValueError as error:
        raise CommandError(f"{flag}: {safe(error)}", Exit.USAGE) from None


def _made(plan: Plan) -> _Traffic:
    title = f"{plan.calls} made calls in {length(plan.length_ms)}: {plan.rate:g} a second, seed {plan.seed}"
    return _Traffic(title, list(plan.made()), START_MS, START_MS + plan.length_ms, dated=False, clients=plan.clients)


def _recorded(file: str) -> _Traffic:
    trace = read_trace(io.StringIO(_text_of(file), newline=""), _name(file))
    calls, start_ms = trace.calls, trace.calls[0].at_ms if trace.dated else START_MS
    end_ms = max(end_of(calls), start_ms + 1)
    number = sum(each.count for each in calls)
    title = f"{number} recorded calls in {length(end_ms - start_ms)}: {_name(file)}"
    said = tuple(f"{_name(file)}: {each}" for each in trace.remarks)
    return _Traffic(title, calls, start_ms, end_ms, trace.dated, len({each.client for each in calls}), said)


def _settings() -> Settings:
    try:
        return Settings.load()
    except SettingsError as error:
        text = f"the operator's defaults cannot be what the environment says:\n{error}"
        raise CommandError(text, Exit.USAGE) from error


def _name(file: str) -> str:
    return "standard input" if file == _STDIN else safe(file, 256)


def _text_of(file: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if file == _STDIN else Path(file).read_bytes()
    except (OSError, ValueError) as error:  # a name with a null byte is a ValueError
        why = error.strerror if isinstance(error, OSError) else error
        raise CommandError(f"{_name(file)} cannot be read: {safe(why)}", Exit.USAGE) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise CommandError(f"{_name(file)} cannot be read: line {line} is no UTF-8", Exit.USAGE) from None
