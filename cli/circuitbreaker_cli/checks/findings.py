"""What `doctor` finds: a verdict, what is so, and what to do about it; told to people and to programs. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from rich.text import Text

from circuitbreaker_cli.marks import STYLES
from circuitbreaker_contract.state import State

T = TypeVar("T")
_SHOWN: Final = 5  # breakers that are named in one finding; programs get all


class Verdict(StrEnum):
    """How it is. Only a problem makes the command fail."""

    PROBLEM = "problem"
    WARNING = "warning"
    OK = "ok"
    NOT_CHECKED = "not checked"


_STYLES: Final = {
    Verdict.PROBLEM: STYLES[State.OPEN],
    Verdict.WARNING: STYLES[State.HALF_OPEN],
    Verdict.OK: STYLES[State.CLOSED],
    Verdict.NOT_CHECKED: "dim",
}
_WIDTH: Final = max(map(len, Verdict))


@dataclass(frozen=True, slots=True)
class Finding:
    """Texts are safe to print. `objects`: the breakers it is about, each perhaps with a detail in brackets."""

    check: str
    verdict: Verdict
    text: str
    remedy: str = ""
    objects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What was asked of others: the value, or why there is none."""

    value: T | None = None
    why_not: str = ""


def not_checked(check: str, why: str, remedy: str = "") -> Finding:
    return Finding(check, Verdict.NOT_CHECKED, why, remedy)


def grouped(findings: Iterable[Finding]) -> list[Finding]:
    """Those that say the same of several breakers, as one; the worst first."""
    groups: dict[tuple[str, Verdict, str, str], list[str]] = {}
    for each in findings:
        groups.setdefault((each.check, each.verdict, each.text, each.remedy), []).extend(each.objects)
    made = [Finding(*said, tuple(objects)) for said, objects in groups.items()]
    return sorted(made, key=lambda each: list(Verdict).index(each.verdict))


def counts(findings: Sequence[Finding]) -> dict[Verdict, int]:
    found = Counter(each.verdict for each in findings)
    return {verdict: found[verdict] for verdict in Verdict}


def summary(findings: Sequence[Finding]) -> str:
    """`1 problem, 2 warnings, 9 ok, 1 not checked`."""
    parts = []
    for verdict, count in counts(findings).items():
        plural = "s" if verdict in {Verdict.PROBLEM, Verdict.WARNING} and count != 1 else ""
        parts.append(f"{count} {verdict.value}{plural}")
    return ", ".join(parts)


def page(findings: Sequence[Finding]) -> Text:
    """A line for each, the way out beneath, the summary last."""
    width = max((len(each.check) for each in findings), default=0)
    indent = " " * (_WIDTH + width + 4)
    text = Text()
    for each in findings:
        text.append(f"{each.verdict.value:<{_WIDTH}}  ", _STYLES[each.verdict])
        text.append(f"{each.check:<{width}}  {each.text}\n")
        if each.objects:
            more = len(each.objects) - _SHOWN
            shown = ", ".join(each.objects[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
            text.append(f"{indent}{shown}\n")
        if each.remedy:
            text.append(f"{indent}-> {each.remedy}\n")
    text.append(summary(findings))
    return text


def told(findings: Sequence[Finding]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "summary": {_camel(verdict): count for verdict, count in counts(findings).items()},
        "findings": [
            {
                "check": each.check,
                "verdict": _camel(each.verdict),
                "text": each.text,
                **({"objects": list(each.objects)} if each.objects else {}),
                **({"remedy": each.remedy} if each.remedy else {}),
            }
            for each in findings
        ],
    }


def _camel(verdict: Verdict) -> str:
    return "notChecked" if verdict is Verdict.NOT_CHECKED else verdict.value
