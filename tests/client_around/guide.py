"""The tables of docs/client.md that follow from the code: `python -m tests.client_around.guide` writes them."""

import re
from pathlib import Path

from circuitbreaker_client import settings
from circuitbreaker_contract.environment import POLICY_VARIABLES
from circuitbreaker_contract.policy import BOUNDS

GUIDE = Path(__file__).parents[2] / "docs" / "client.md"
FOLLOWING = {  # defaults that go with another field
    "success_threshold": "`CB_HALF_OPEN_LIMIT`, else {}",
    "minimum_calls": "{}, or `CB_WINDOW_CALLS` where that is less",
}
UNITS = {"_seconds": "seconds", "_ms": "duration", "_percent": "percent", "_breakers": "count"}


def options() -> str:
    """The table in the module's docstring, with a column for the unit."""
    rows = []
    for row in re.findall(r"^\| `.*$", settings.__doc__ or "", re.MULTILINE):
        option, variable, default = (cell.strip() for cell in row.strip("|").split("|"))
        unit = next((unit for ending, unit in UNITS.items() if option.strip("`").endswith(ending)), "")
        rows.append(f"| {option} | {variable} | {unit} | {default} |")
    note = re.findall(r"^(?:A variable for|What looks like) .*$", settings.__doc__ or "", re.MULTILINE)
    return "\n".join(["| option | variable | unit | default |", "|---|---|---|---|", *rows, "", *note])


def policy() -> str:
    """A row for each field that the environment can set."""
    rows = []
    for field, bounds in BOUNDS.items():
        default = getattr(settings.DEFAULT_POLICY, field)
        shown = "none" if not default else f"{default / 1000:g} s" if field.endswith("_ms") else str(default)
        shown = FOLLOWING.get(field, "{}").format(shown)
        low, high = (f"{each / 1000:g} s" if field.endswith("_ms") else f"{each}" for each in (bounds.low, bounds.high))
        unit = next((unit for ending, unit in UNITS.items() if field.endswith(ending)), "count")
        rows.append(f"| `{field}` | `{POLICY_VARIABLES[field]}` | {unit} | {low} to {high} | {shown} |")
    rows.append("| `mode` | `CB_MODE` | | `Enforce`, `Observe` | `Enforce` |")
    return "\n".join(["| field of `Policy` | variable | unit | from, to | default |", "|---|---|---|---|---|", *rows])


def rendered(text: str) -> str:
    """The guide with both tables as they are to be."""
    for name, table in (("options", options()), ("policy", policy())):
        text = re.sub(rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end -->)", rf"\1\n{table}\n\n\2", text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    GUIDE.write_text(rendered(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
