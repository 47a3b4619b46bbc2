"""What `simulate` reads: traces and manifests, and what it says about those that are wrong."""

import io
from pathlib import Path
from typing import Any

import pytest

from circuitbreaker_cli.errors import CommandError, Exit
from circuitbreaker_cli.simulation.manifests import read_manifest
from circuitbreaker_cli.simulation.traces import Trace, read_trace
from circuitbreaker_cli.simulation.traffic import CLIENT, START_MS, Call
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Outcome
from circuitbreaker_operator.settings import Settings

ROOT = Path(__file__).parents[2]
HEAD = "apiVersion: circuitbreaker.dev/v1alpha1\nkind: CircuitBreaker\n"


def trace(text: str) -> Trace:
    return read_trace(io.StringIO(text, newline=""), "calls.csv")


def complaint(read: Any, *arguments: Any) -> str:
    with pytest.raises(CommandError) as caught:
        read(*arguments)
    assert caught.value.code is Exit.USAGE
    return str(caught.value)


def manifest(text: str) -> Any:
    return read_manifest(text, "breaker.yaml", Settings(_env_file=None))


# -- traces


def test_a_trace_in_seconds() -> None:
    made = trace("at,outcome\n0,success\n\n1.5,failure\n2,slow\n2,Ignored\n")
    assert [(each.at_ms - START_MS, each.outcome) for each in made.calls] == [
        (0, Outcome.SUCCESS), (1_500, Outcome.FAILURE), (2_000, Outcome.SLOW_SUCCESS), (2_000, Outcome.IGNORED)
    ]  # fmt: skip
    assert (made.dated, made.remarks) == (False, ())


def test_all_columns_in_any_order_with_times() -> None:
    first, second = "3,250ms,web-1,failure,2026-01-01T00:00:00.5Z", ",,,success,1767225601"
    made = trace(f"\ufeffcount, Duration,client,outcome,at\r\n{first}\r\n{second}\r\n")
    assert made.dated
    assert made.calls == (
        Call(1_767_225_600_500, Outcome.FAILURE, 250, 3, "web-1"),
        Call(1_767_225_601_000, Outcome.SUCCESS, None, 1, CLIENT),
    )
    assert trace("at,outcome,duration\n1,success,0.2501\n").calls[0].duration_ms == 251  # longer than 250ms is slow


def test_lines_in_disorder_are_sorted_and_it_is_said() -> None:
    made = trace("at,outcome,path\n2,failure,/a\n1,success,/b\n")
    assert [each.outcome for each in made.calls] == [Outcome.SUCCESS, Outcome.FAILURE]
    assert made.remarks == ("column 'path' is not read", "its lines were not in order of time; they have been sorted")
    assert "is it duration?" in trace("at,outcome,durations\n1,success,1\n").remarks[0]


@pytest.mark.parametrize(
    ("text", "words"),
    {
        "at,outcome\nsoon,success\n": "line 2: column at: 'soon' must be a time like 2030-01-31T18:00:00Z, or seconds",
        "at,outcome\n-1,success\n": "line 2: column at: '-1' must be",
        "at,outcome\nnan,success\n": "line 2: column at: 'nan' must be",
        "at,outcome\n2026-02-30T00:00:00Z,success\n": "line 2: column at:",
        "at,outcome\n9999999999,success\n": "line 2: column at: '9999999999'",
        "at,outcome\n1,success\n2026-01-01T00:00:00Z,success\n": "line 3: column at: a time, and the first line has",
        "at,outcome\n1,ok\n": "line 2: column outcome: 'ok' must be success, failure, slow, ignored",
        "at,outcome,duration\n1,success,fast\n": "line 2: column duration: 'fast' must be a duration like 250ms",
        "at,outcome,duration\n1,success,25h\n": "at most 24h",
        "at,outcome,count\n1,success,0\n": "line 2: column count: '0' must be a whole number from 1 to 1000000",
        "at,outcome,count\n1,success,\u0663\n": "line 2: column count:",
        "at,outcome,client\n1,success,a b\n": "line 2: column client: 'a b' must be 1 to 64 of",
        "at,outcome\n1,success,7\n": "line 2: has 3 fields, and the header 2",
        "time,outcome\n1,success\n": "line 1: the header has no column at",
        "at;outcome\n1;success\n": "line 1: the header has no column outcome",
        "at,at,outcome\n1,1,success\n": "names the column at more than once",
        "at,outcome\n": "no calls are in it",
        "": "no calls are in it",
        'at,outcome\n1,"success\n': "line 2: is no CSV",
    }.items(),
)  # fmt: skip
def test_a_trace_that_cannot_be_read(text: str, words: str) -> None:
    assert words in complaint(trace, text)


def test_every_bad_line_is_named_and_many_are_counted() -> None:
    said = complaint(trace, "at,outcome\n" + "1,no\n" * 30).splitlines()
    assert said[0] == "calls.csv cannot be read as a trace"
    assert [each.partition(":")[0] for each in said[1:21]] == [f"line {number}" for number in range(2, 22)]
    assert said[21:] == ["... and 10 lines more"]


def test_a_hostile_trace_is_harmless() -> None:
    said = complaint(trace, "at,outcome\n\x1b[2J,[red]\u202e\n")
    assert not set(said) & set("\x1b\u202e")


# -- manifests


def test_a_manifest_with_the_operator_s_defaults() -> None:
    made = manifest(HEAD + "metadata: {namespace: shop, name: pay}\nspec: {recoveryTimeout: 1m}\n")
    assert made.name == "shop/pay"
    assert made.policy == Policy(5, 60_000, 3, 3, 30_000)
    assert manifest(HEAD).policy == Policy(5, 30_000, 3, 3, 30_000)
    until = "spec: {override: {state: Open, reason: x, until: 2030-01-31T18:00:00Z}}\n"
    assert manifest(HEAD + until).policy.override.until_ms == 1_896_112_800_000  # no quotes: text, as for kubectl


@pytest.mark.parametrize("path", ["manifests/samples/payments.yaml", "examples/kubernetes/breaker.yaml"])
def test_our_own_manifests_can_be_read(path: str) -> None:
    assert manifest((ROOT / path).read_text(encoding="utf-8")).policy


@pytest.mark.parametrize(
    ("text", "words"),
    {
        HEAD + "spec: {failureTreshold: 3}": "spec.failureTreshold: there is no such field; did you mean",
        HEAD + "spec: {backoff: {factor: 2, max: 1m, jitter: 5}}": "spec.backoff.jitter: there is no such",
        HEAD + "spec: {zzz: 3}\n": "it has failureThreshold, recoveryTimeout,",
        HEAD + "spec: {recoveryTimeout: soon, failureThreshold: -1}\n": "spec.failureThreshold: must be a whole",
        HEAD + "spec: {failureThreshold: 0}\n": "spec.failureThreshold: 0 turns off the only rule",
        HEAD + "spec: [1]\n": "spec: must be an object",
        HEAD + "---\n" + HEAD: "holds 2 documents; it must be one CircuitBreaker",
        "": "holds 0 documents",
        "[1, 2]\n": "holds no object",
        "apiVersion: v1\nkind: List\nitems: []\n": "holds kind List, apiVersion v1; it must be kind CircuitBreaker",
        "kind: CircuitBreaker\n": "apiVersion missing",
        "a: [1\n": "is no YAML: line 2, column 1",
        "a: &x [*x]\n": "holds kind missing",
        "[" * 1_000: "nested too deep",
        "!!python/object:os.system {}\n": "is no YAML: line 1",
    }.items(),
)  # fmt: skip
def test_a_manifest_that_cannot_be(text: str, words: str) -> None:
    assert words in complaint(manifest, text)


def test_each_problem_of_a_manifest_has_its_line() -> None:
    said = complaint(manifest, HEAD + "spec: {recoveryTimeout: soon, failureThreshold: -1}\n").splitlines()
    assert [each.partition(":")[0] for each in said[1:]] == ["spec.failureThreshold", "spec.recoveryTimeout"]
