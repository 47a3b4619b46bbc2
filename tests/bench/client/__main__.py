"""`make bench-client`: the Python client beside the breakers one could take instead, in one run.

Prints; asserts nothing. The default form takes about five minutes. All traffic is to 127.0.0.1, to a redis-server of
its own.
"""

import argparse
import os
import statistics
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from circuitbreaker_local.redis_server import RedisServer, find_redis_server
from tests.bench.client.calls import Costs, best, costs, over_bare, typical
from tests.bench.client.commands import FAILING, Load, load
from tests.bench.client.contenders import CONTENDERS, Contender
from tests.bench.client.memory import memory, mib
from tests.bench.client.openings import PROCESSES, Openings, openings

DISTRIBUTIONS = ("pybreaker", "aiobreaker", "purgatory", "circuitbreaker", "interlock-cb", "redis")
OURS = "ours, Redis"
PARTS = ("calls", "commands", "openings", "memory")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.client", description=__doc__)
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the figures into this file")
    parser.add_argument("--long", action="store_true", help="more rounds, and 200 openings of everybody (25 minutes)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="only these parts")
    parser.add_argument("--million-calls", type=int, default=50, metavar="N", help="of the look at memory (50)")
    return parser.parse_args()


def main() -> None:
    """All figures, with the machine's load before and after."""
    asked = arguments()
    print(f"{os.cpu_count()} cores, load before {_load_average()}; Redis and all that is measured share them")
    print(", ".join(f"{name} {version(name)}" for name in DISTRIBUTIONS), flush=True)
    call_costs: dict[str, Costs] = {}
    loads: dict[str, Load] = {}
    spread: dict[str, Openings] = {}
    looks: list[tuple[int, int, float]] = []
    server = find_redis_server()
    everybody = [each for each in CONTENDERS.values() if not each.form]
    if "calls" in asked.only:
        with RedisServer(server) as redis:
            call_costs = costs([*CONTENDERS.values()], redis.url, 40 if asked.long else 12)
        show_costs(call_costs)
    if "commands" in asked.only:
        with RedisServer(server) as redis:
            sharing = [each for each in everybody if each.store == "Redis"]
            seconds = 20.0 if asked.long else 3.0
            for each in sharing:
                loads[each.name] = load(each, redis.url, seconds, 0)
                loads[f"{each.name}, failing"] = load(each, redis.url, seconds, FAILING)
        show_loads(loads)
    if "openings" in asked.only:
        for each in compared_openings(everybody):
            count = 200 if asked.long or each.library == "ours" else 20 if each.library == "interlock" else 50
            with RedisServer(server) as redis:
                spread[each.name] = openings(each, redis.url, count)
            show_opening(each, spread[each.name])
    if "memory" in asked.only and OURS in CONTENDERS:
        with RedisServer(server) as redis:
            looks = memory(CONTENDERS[OURS], redis.url, asked.million_calls * 1_000_000)
        show_memory(looks)
    if asked.plot:
        from tests.bench.client.plot import draw  # it takes a second to import

        draw(asked.plot, call_costs, loads, spread, looks)
        print(f"drawn into {asked.plot}")
    print(f"load after {_load_average()}")


def compared_openings(everybody: list[Contender]) -> list[Contender]:
    """One form of each library that shares state: the sync one where it has it."""
    chosen: dict[str, Contender] = {}
    for each in everybody:
        if each.store == "Redis" and (each.library not in chosen or not each.is_async):
            chosen[each.library] = each
    return list(chosen.values())


def show_costs(found: Mapping[str, Costs]) -> None:
    """A row a contender, and ours over it. Of the rounds the least disturbed one, and the middle one."""
    print("\nnanoseconds a call: the least disturbed round (the middle one); ours/it compares the former")
    print(f"{'':<28}{'bare':>6}{'permitted, over bare':>26}{'ours/it':>9}{'refused, all of it':>26}{'ours/it':>9}")
    for name, each in found.items():
        ours = OURS + (", async" if name.endswith("async") else "")
        permitted, refused = over_bare(found, name, best), best(each.refused)
        ratios = ("", "")
        if ours in found and not name.startswith("ours"):
            ratios = (_ratio(over_bare(found, ours, best), permitted), _ratio(best(found[ours].refused), refused))
        print(
            f"{name:<28}{best(each.bare) * 1e9:>6.0f}"
            f"{f'{permitted * 1e9:,.0f} ({over_bare(found, name, typical) * 1e9:,.0f})':>26}{ratios[0]:>9}"
            f"{f'{refused * 1e9:,.0f} ({typical(each.refused) * 1e9:,.0f})':>26}{ratios[1]:>9}",
            flush=True,
        )


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.2f}" if ours * 5 > theirs else f"1/{theirs / ours:.0f}"


def show_loads(found: Mapping[str, Load]) -> None:
    """A row a contender."""
    print(
        "\nRedis commands per 1,000 calls, one process that tries to make 10,000 calls/s (failing: 1 in 1,000 of them)"
    )
    for name, each in found.items():
        made = f"at {each.calls_per_second:,.0f} calls/s"
        print(f"{name:<34}{each.sent:>10.2f} sent {each.executed:>10.2f} executed   {made}", flush=True)


def show_opening(contender: Contender, found: Openings) -> None:
    """A row a contender, as it comes."""
    how = "woken by its event" if contender.library == "ours" else f"calling every {contender.pace_ms:.0f} ms"
    lost = f", {found.lost} never opened" if found.lost else ""
    row = "none opened"
    if found.ms:
        ranked = sorted(found.ms)
        p99 = ranked[min(len(ranked) - 1, round(0.99 * len(ranked)))]
        row = f"p50 {statistics.median(ranked):8.1f}   p99 {p99:8.1f}   max {ranked[-1]:8.1f} ms"
    print(
        f"{f'{contender.name}: trip -> last of {PROCESSES} processes refusing':<62} {row}   "
        f"n={len(found.ms)}{lost} ({how})",
        flush=True,
    )


def show_memory(looks: list[tuple[int, int, float]]) -> None:
    """Before, after, and in between."""
    sizes = mib(looks)
    print(
        f"\nresident memory of a process: {sizes[0]:.1f} MiB before, {sizes[-1]:.1f} MiB after {looks[-1][0]:,} calls "
        f"in {looks[-1][2]:.0f} s; on the way {' '.join(f'{each:.1f}' for each in sizes[1:-1])}"
    )


def _load_average() -> str:
    return ", ".join(f"{each:.2f}" for each in os.getloadavg())


if __name__ == "__main__":
    main()
