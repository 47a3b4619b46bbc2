"""The figures as one picture: what a call costs, how openings spread, what Redis is asked, and memory over calls."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tests.bench.client.calls import Costs, best, over_bare
from tests.bench.client.commands import Load
from tests.bench.client.openings import Openings

OURS, OTHERS = "#c2410c", "#94a3b8"


def draw(
    path: Path,
    costs: Mapping[str, Costs],
    loads: Mapping[str, Load],
    openings: Mapping[str, Openings],
    memory: Sequence[tuple[int, int, float]],
) -> None:
    """Writes a PNG."""
    mpl.use("Agg")
    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = plt.figure(figsize=(18, 11), layout="constrained")
        upper, lower = figure.subfigures(2, 1)
        calls, refusals, asked = upper.subplots(1, 3)
        spread, flat = lower.subplots(1, 2)
        permitted = {name: over_bare(costs, name, best) * 1e6 for name in costs}
        refused = {name: best(each.refused) * 1e6 for name, each in costs.items()}
        _bars(calls, "Permitted call, over the bare call", "µs", permitted)
        _bars(refusals, "Refused call, with its exception", "µs", refused)
        sent = {name: each.sent for name, each in loads.items() if not name.endswith("failing")}
        _bars(asked, "Sent to Redis per 1,000 calls", "commands", sent)
        _spread(spread, openings)
        _flat(flat, memory)
        figure.suptitle("Circuit breakers for Python, side by side in one run", fontsize=13, fontweight="bold")
        figure.savefig(path, dpi=110)
        plt.close(figure)


def _bars(axes: Axes, title: str, unit: str, figures: Mapping[str, float]) -> None:
    ranked = sorted(figures.items(), key=lambda pair: -pair[1])
    bars = axes.barh(
        [name for name, _ in ranked],
        [figure for _, figure in ranked],
        color=[OURS if name.startswith("ours") else OTHERS for name, _ in ranked],
    )
    axes.bar_label(bars, labels=[_short(figure) for _, figure in ranked], padding=3)
    axes.set_xscale("log")
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel(f"{unit} (log scale)")
    axes.margins(x=0.25)


def _short(figure: float) -> str:
    """Three digits that count."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def _spread(axes: Axes, openings: Mapping[str, Openings]) -> None:
    for name, found in openings.items():
        if found.ms:
            ranked = sorted(found.ms)
            shares = [100 * (number + 1) / len(ranked) for number in range(len(ranked))]
            ours = name.startswith("ours")
            look = {"color": OURS, "lw": 2.5} if ours else {"lw": 1.2}
            axes.step(ranked, shares, where="post", label=f"{name} (n={len(ranked)})", **look)
    axes.set_xscale("log")
    axes.set_title("Outcome that trips -> last of 50 processes refusing", loc="left", fontweight="bold")
    axes.set_xlabel("ms (log scale)")
    axes.set_ylabel("% of openings")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)


def _flat(axes: Axes, memory: Sequence[tuple[int, int, float]]) -> None:
    if memory:
        axes.plot([each[0] / 1e6 for each in memory], [each[1] / 2**20 for each in memory], "o-", color=OURS)
        axes.set_ylim(bottom=0)
    axes.set_title("Resident memory of a process of ours", loc="left", fontweight="bold")
    axes.set_xlabel("million calls")
    axes.set_ylabel("MiB")
