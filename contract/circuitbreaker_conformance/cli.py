"""The command `circuitbreaker-conformance`: plays the scenarios against the functions in a Redis of its own.

Exit status: 0 every scenario passed, 1 some did not, 2 they could not be played.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import redis

from circuitbreaker_conformance.playing import BASE_MS, BREAKER, KEY, Verdict, play
from circuitbreaker_conformance.redis_store import CLOCK_KEY, RedisStore
from circuitbreaker_conformance.scenarios import Scenario, load
from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import CircuitBreakerError
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.protocol import Version
from circuitbreaker_contract.state import Projection

PASSED: Final = 0
FAILED: Final = 1
NOT_PLAYED: Final = 2

_DESCRIPTION: Final = f"""\
Plays the scenarios of the contract against the function library, in a Redis of its own, and says what differs.

The time of a scenario is set, so the library is loaded with another clock than the shipped one: it reads the key
{CLOCK_KEY} (a whole number, ms since the Unix epoch). A library of another implementation, given by --library, has to
do the same. Give it a standalone Redis >= 7.0 or Valkey >= 7.2 that holds nothing; what the run made is removed at
its end. Exit status: 0 all passed, 1 some failed, 2 nothing could be played.
"""


class NotPlayedError(CircuitBreakerError):
    """The run cannot begin; the text says why, and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point of the console script; returns the exit status."""
    given = _parser().parse_args(arguments)
    try:
        chosen = _chosen(load(), given.group, given.scenario)
        if given.list:
            _say(_listed(chosen, as_json=given.json))
            return PASSED
        if given.redis is None:
            raise NotPlayedError("--redis is missing: the URL of a Redis that holds nothing")
        text = Path(given.library).read_text(encoding="utf-8") if given.library else None
        with _opened(given.redis, text, erase=given.erase) as store:
            version, server = _examined(store), store.client.info("server")["redis_version"]
            verdicts = [_played(scenario, store) for scenario in chosen]
    except (CircuitBreakerError, redis.RedisError, OSError, ValueError) as error:
        sys.stderr.write(f"circuitbreaker-conformance: {error}\n")
        return NOT_PLAYED
    _say(_as_json(verdicts, version, server) if given.json else _as_text(verdicts, version, server))
    return PASSED if all(verdict.passed for verdict in verdicts) else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "circuitbreaker-conformance", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--redis", metavar="URL", help="redis://host:port, or rediss:// and unix:// as redis-py has them")
    add("--erase", action="store_true", help="the Redis holds something: delete all of it first, functions too")
    add("--library", metavar="FILE", help=f"the library to play against, reading its time from {CLOCK_KEY}")
    add("--group", metavar="TEXT", help="only groups whose name holds this text")
    add("--scenario", metavar="TEXT", help="only scenarios whose name holds this text")
    add("--list", action="store_true", help="list the scenarios and play none")
    add("--json", action="store_true", help="the report as one JSON object")
    return parser


def _chosen(scenarios: tuple[Scenario, ...], group: str | None, name: str | None) -> tuple[Scenario, ...]:
    chosen = tuple(
        scenario
        for scenario in scenarios
        if (group or "").lower() in scenario.group.lower() and (name or "").lower() in scenario.name.lower()
    )
    if not chosen:
        groups = ", ".join(dict.fromkeys(scenario.group for scenario in scenarios))
        raise NotPlayedError(f"no scenario has that group and name; the groups are: {groups}")
    return chosen


@contextmanager
def _opened(url: str, text: str | None, *, erase: bool) -> Iterator[RedisStore]:
    """A store in that Redis; what the run made goes at its end, and nothing else ever does without `erase`."""
    with redis.Redis.from_url(url, decode_responses=True, socket_connect_timeout=5, socket_timeout=30) as client:
        if client.info("cluster").get("cluster_enabled"):
            raise NotPlayedError("this Redis is a cluster; give it a standalone one")
        if held := _held(client):
            if not erase:
                raise NotPlayedError(
                    f"this Redis holds {held}. The run needs one that is empty; "
                    "give it another, or --erase to delete everything in this one"
                )
            client.flushall()
            client.function_flush()
        try:
            store = RedisStore(client, text)
        except redis.ResponseError as error:
            raise NotPlayedError(f"Redis does not take the library: {error}") from error
        try:
            yield store
        finally:
            store.clear(BREAKER)
            store.close()
            client.function_delete(store.library)


def _held(client: redis.Redis) -> str:
    """What is in that Redis, in words; empty when nothing is."""
    keys = sum(int(database["keys"]) for database in client.info("keyspace").values())
    libraries = len(client.function_list())
    found = [f"{count} {noun}" for count, noun in ((keys, "keys"), (libraries, "function libraries")) if count]
    return " and ".join(found)


def _examined(store: RedisStore) -> Version:
    """The library's version. Raises NotPlayedError when it does not read the time that is set."""
    store.set_clock(BASE_MS)
    policy = Policy(3, 10_000, 2, 2, 5_000)
    try:
        for call in (
            protocol.version(),
            protocol.configure(KEY, owner="o", uid="u", generation=1, policy=policy, project=Projection.NOTHING),
        ):
            call.read(store.execute(*call.command()))
        seen = protocol.observe(KEY).read(store.execute(*protocol.observe(KEY).command())).now_ms
        version = protocol.version().read(store.execute(*protocol.version().command()))
    except CircuitBreakerError as error:
        raise NotPlayedError(f"the library answers a first call with: {error}") from error
    if seen != BASE_MS:
        raise NotPlayedError(f"the library does not read its time from the key {CLOCK_KEY}: it says {seen}")
    return version


def _played(scenario: Scenario, store: RedisStore) -> Verdict:
    store.clear(BREAKER)
    store.messages()
    return play(scenario, store)


def _counts(verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    """Group -> how many scenarios passed and failed."""
    passed = Counter(verdict.scenario.group for verdict in verdicts if verdict.passed)
    groups = Counter(verdict.scenario.group for verdict in verdicts)
    return {group: {"passed": passed[group], "failed": count - passed[group]} for group, count in groups.items()}


def _as_text(verdicts: Sequence[Verdict], version: Version, server: str) -> str:
    counts = _counts(verdicts)
    width = max(map(len, counts))
    lines = [f"library {version.library} (contract {version.contract}, digest {version.digest}), Redis {server}", ""]
    for group, count in counts.items():
        failed = f"  {count['failed']:>4} FAILED" if count["failed"] else ""
        lines.append(f"  {group:<{width}}  {count['passed']:>4} passed{failed}")
    lines.append("")
    failures = [verdict for verdict in verdicts if not verdict.passed]
    for verdict in failures:
        lines.append(f"FAILED {verdict.scenario}")
        lines += [f"  {line}" for line in str(verdict).splitlines()]
        lines.append("")
    lines.append(f"{len(verdicts) - len(failures)} passed, {len(failures)} failed")
    return "\n".join(lines)


def _as_json(verdicts: Sequence[Verdict], version: Version, server: str) -> str:
    failed = sum(not verdict.passed for verdict in verdicts)
    report: dict[str, Any] = {
        "library": asdict(version),
        "redis": server,
        "passed": len(verdicts) - failed,
        "failed": failed,
        "groups": _counts(verdicts),
        "scenarios": [
            {
                "group": verdict.scenario.group,
                "name": verdict.scenario.name,
                "passed": verdict.passed,
                "step": verdict.step,
                "differences": [asdict(difference) for difference in verdict.differences],
            }
            for verdict in verdicts
        ],
    }
    return json.dumps(report, indent=2, ensure_ascii=False)


def _listed(scenarios: Sequence[Scenario], *, as_json: bool) -> str:
    if as_json:
        return json.dumps([{"group": each.group, "name": each.name} for each in scenarios], ensure_ascii=False)
    lines: list[str] = []
    for group in dict.fromkeys(scenario.group for scenario in scenarios):
        lines += [group, *(f"  {scenario.name}" for scenario in scenarios if scenario.group == group)]
    return "\n".join([*lines, f"{len(scenarios)} scenarios"])


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
