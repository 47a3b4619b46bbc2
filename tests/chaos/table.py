"""The table in docs/reliability.md: what the last whole run found for each cell. Values in, text out."""

import re
from collections.abc import Mapping
from pathlib import Path

from tests.chaos.matrix import CELLS, FAULTS, LEFT_OUT, TARGETS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
HOLDS, FAILS, NOT_RUN, NONE = "holds", "**fails**", "not run", "-"
BEGIN, END = "<!-- matrix: written by make chaos -->", "<!-- end -->"

Results = Mapping[tuple[str, str], str]


def written(results: Results) -> str:
    """Markdown: a row for each fault, a column for each target; then why cells fail, and why others are left out."""
    cells = {(each.target, each.fault): each for each in CELLS}
    lines = [f"| | {' | '.join(TARGETS)} |", f"|---|{'---|' * len(TARGETS)}"]
    for fault in FAULTS:
        words = [results.get((target, fault), NOT_RUN) if (target, fault) in cells else NONE for target in TARGETS]
        lines.append(f"| {fault} | {' | '.join(words)} |")
    failing = [each for each in CELLS if results.get((each.target, each.fault)) == FAILS]
    if failing:
        lines += ["", "What fails:", ""]
        lines += [f"- {each.name}: {each.fails or 'seen in the last run, not explained yet'}." for each in failing]
    lines += ["", "Left out:", ""]
    lines += [f"- {target}, {fault}: {why}." for (target, fault), why in LEFT_OUT.items()]
    return "\n".join(lines)


def read(page: str) -> dict[tuple[str, str], str]:
    """The results that a page holds."""
    found = {}
    for line in _between(page).splitlines():
        words = [word.strip() for word in line.strip("|").split("|")]
        if line.startswith("|") and words[0] in FAULTS:
            found |= {(target, words[0]): word for target, word in zip(TARGETS, words[1:], strict=True)}
    return {cell: word for cell, word in found.items() if word in {HOLDS, FAILS}}


def put_into(page: str, results: Results) -> str:
    """The page with these results; those of cells that were not run stay."""
    whole = {**read(page), **results}
    before, after = page.split(BEGIN, maxsplit=1)[0], page.rsplit(END, maxsplit=1)[-1]
    return f"{before}{BEGIN}\n\n{written(whole)}\n\n{END}{after}"


def _between(page: str) -> str:
    found = re.search(f"{re.escape(BEGIN)}(.*?){re.escape(END)}", page, flags=re.DOTALL)
    assert found is not None, f"{PAGE.name} has lost its markers"
    return found[1]
