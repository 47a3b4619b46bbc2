"""What came of simulations, told to people and to programs. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from circuitbreaker_cli.marks import state_text
from circuitbreaker_cli.simulation.runs import Run, Tally
from circuitbreaker_cli.words import length, percent
from circuitbreaker_contract.durations import format_duration
from circuitbreaker_contract.state import State, Transition
from circuitbreaker_operator import times, wording

_SHOWN: Final = 40  # transitions in a table, the first and the last of them; programs get all


@dataclass(frozen=True, slots=True)
class Trial:
    """A run with the names that it goes by, all safe to print. `name`: of the breaker, "" when it has none."""

    file: str
    name: str
    run: Run
    remarks: tuple[str, ...] = ()


def heading(trial: Trial) -> Text:
    """Which breaker, and its policy in one line."""
    policy = wording.spelled(wording.policy_map(trial.run.policy, forced=False))
    return Text.assemble((trial.name or trial.file, "bold"), f" ({trial.file})" if trial.name else "", f"\n  {policy}")


def transitions(run: Run, *, dated: bool) -> Table | Text:
    """A line for each, with the rule and its numbers."""
    if not run.transitions:
        return Text("  stays Closed all the time")
    table = _table("AT", "STATE", "REASON", "WHY")
    left_out = max(0, len(run.transitions) - _SHOWN)
    first, last = run.transitions[: _SHOWN // 2], run.transitions[_SHOWN // 2 + left_out :]
    for each in first if left_out else run.transitions:
        table.add_row(*_row(run, each, dated=dated))
    if left_out:
        table.add_row(Text("..."), Text(""), Text(""), Text(f"{left_out} more, all with -o json"))
        for each in last:
            table.add_row(*_row(run, each, dated=dated))
    return table


def _row(run: Run, entry: Transition, *, dated: bool) -> list[Text]:
    at = times.to_text(entry.at_ms) if dated else format_duration(entry.at_ms - run.start_ms)
    why = wording.because(entry, run.policy)
    if entry.state is State.OPEN and entry.open_until_ms is not None:
        why += f"; Open for {format_duration(entry.open_until_ms - entry.at_ms)}"
    return [Text(at), state_text(entry.state.value), Text(entry.reason.value), Text(why)]


def totals(tried: Sequence[Trial]) -> Table:
    """The sums, a column for each."""
    columns = [[each.file, *(read(each.run) for _, read in _SUMS)] for each in tried]
    columns = [[cell.rjust(max(map(len, column))) for cell in column] for column in columns]
    table = _table("", *(column[0] for column in columns))
    for number, (title, _) in enumerate(_SUMS, 1):
        table.add_row(Text(title), *(Text(column[number]) for column in columns))
    return table


_SUMS: Final[tuple[tuple[str, Callable[[Run], str]], ...]] = (
    ("calls", lambda run: str(run.total.calls)),
    ("permitted", lambda run: str(run.total.permitted)),
    ("refused", lambda run: str(run.total.refused)),
    ("failures let through", lambda run: str(run.total.failures)),
    ("failures refused", lambda run: str(run.total.refused_failures)),
    ("other calls refused", lambda run: str(run.total.refused - run.total.refused_failures)),
    ("probes", lambda run: str(run.total.probes)),
    ("late outcomes", lambda run: str(run.total.late)),
    ("openings", lambda run: str(run.openings)),
    ("time Open", lambda run: f"{percent(run.open_percent)} ({length(run.state_ms[State.OPEN])})"),
    ("state at the end", lambda run: run.state.value),
)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in columns:
        table.add_column(Text(name), no_wrap=True, overflow="ignore")
    return table


def told(tried: Sequence[Trial], *, dated: bool) -> dict[str, Any]:
    """The same for programs. Times are seconds since the beginning, and instants as well where the trace has them."""
    run = tried[0].run
    return {
        **({"from": times.to_text(run.start_ms), "to": times.to_text(run.end_ms)} if dated else {}),
        "seconds": _seconds(run.end_ms - run.start_ms),
        "runs": [_run(each, dated=dated) for each in tried],
    }


def _run(trial: Trial, *, dated: bool) -> dict[str, Any]:
    run = trial.run
    return {
        "file": trial.file,
        "name": trial.name,
        "remarks": list(trial.remarks),
        "policy": wording.policy_map(run.policy, forced=False),
        "openings": run.openings,
        "state": run.state.value,
        "stateSeconds": {state.value: _seconds(run.state_ms[state]) for state in State},
        "totals": _tally(run.total),
        "transitions": [_transition(run, each, dated=dated) for each in run.transitions],
        "slotSeconds": _seconds(run.slot_ms),
        "slots": list(_slots(run)),
    }


def _slots(run: Run) -> Iterable[dict[str, Any]]:
    for number, (slot, state) in enumerate(zip(run.slots, run.states, strict=True)):
        yield {"afterSeconds": _seconds(number * run.slot_ms), "state": state.value, **_tally(slot)}


def _tally(tally: Tally) -> dict[str, int]:
    return {
        "calls": tally.calls,
        "successes": tally.successes + tally.slow,
        "slow": tally.slow + tally.slow_failures,
        "failures": tally.failures,
        "ignored": tally.ignored,
        "notPermitted": tally.refused,
        "failuresNotPermitted": tally.refused_failures,
        "probes": tally.probes,
        "late": tally.late,
    }


def _transition(run: Run, entry: Transition, *, dated: bool) -> dict[str, Any]:
    open_ms = None if entry.open_until_ms is None else entry.open_until_ms - entry.at_ms
    return {
        **({"at": times.to_text(entry.at_ms)} if dated else {}),
        "afterSeconds": _seconds(entry.at_ms - run.start_ms),
        "from": entry.previous.value if entry.previous else "",
        "to": entry.state.value,
        "reason": entry.reason.value,
        "message": wording.because(entry, run.policy),
        "attempt": entry.attempt,
        "consecutiveFailures": entry.consecutive_failures,
        "window": {"calls": entry.window.calls, "failures": entry.window.failures, "slow": entry.window.slow},
        **({} if open_ms is None else {"openSeconds": _seconds(open_ms)}),
    }


def _seconds(ms: int) -> float:
    return ms / 1_000
