"""simulate, as a program: no cluster, no Redis, no kubectl; files, standard input, terminals, exit codes."""

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from circuitbreaker_cli.main import main
from tests.cli.shell import PROGRAM, Done, Shell

Simulate = Callable[..., Done]

HEAD = "apiVersion: circuitbreaker.dev/v1alpha1\nkind: CircuitBreaker\n"
MADE = ("--rate", "10", "--failures", "0-10s:0%,10s-20s:100%,20s-:0%", "--for", "1m")
SAMPLE = Path(__file__).parents[2] / "examples" / "traces"


@pytest.fixture
def breaker(tmp_path: Path) -> str:
    path = tmp_path / "breaker.yaml"
    path.write_text(HEAD + "metadata: {namespace: shop, name: pay}\nspec: {recoveryTimeout: 10s}\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Simulate:
    """The program in this process: one of its own takes a second to start."""

    def run(*arguments: str, code: int = 0, stdin: str = "") -> Done:
        monkeypatch.setattr("sys.argv", ["kubectl-breaker", "simulate", *arguments])
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert int(ended.value.code or 0) == code, said
        return Done(code, said.out, said.err)

    return run


def by_itself(*arguments: str, **environment: str) -> Done:
    """A process that has neither kubectl nor anything else around."""
    done = subprocess.run(
        [str(PROGRAM), "simulate", *arguments],
        env={"PATH": "/nowhere", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_made_traffic_opens_it_and_says_so(simulate: Simulate, breaker: str) -> None:
    done = simulate("-f", breaker, *MADE)
    assert done.out.splitlines()[0] == "600 made calls in 1m: 10 a second, seed 0"
    assert "10s400ms" in done.out
    assert "5 consecutive failures reached failureThreshold 5; Open for 10s" in done.out
    assert "○" in done.out
    assert done.err == ""
    plain = by_itself("-f", breaker, *MADE, PYTHONIOENCODING="ascii").out
    assert plain.isascii()
    assert plain.splitlines()[-12:] == done.out.splitlines()[-12:]  # the same traffic: the same sums


def test_two_policies_side_by_side_for_programs(simulate: Simulate, breaker: str, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(HEAD + "spec: {failureThreshold: 1000, mode: Observe}\n", encoding="utf-8")
    done = simulate("-f", breaker, "--compare", str(other), *MADE, "-o", "json")
    runs = done.json["runs"]
    assert [each["openings"] for each in runs] == [1, 0]
    assert [each["totals"]["calls"] for each in runs] == [600, 600]
    assert runs[1]["remarks"] == ["mode Observe refuses nothing; shown is what Enforce would do"]
    assert runs[1]["remarks"][0] in done.err
    assert yaml.safe_load(simulate("-f", breaker, "--compare", str(other), *MADE, "-o", "yaml").out) == done.json


def test_a_trace_from_standard_input_with_times(simulate: Simulate, breaker: str) -> None:
    lines = "".join(f"2026-01-01T00:00:{second:02}Z,failure\n" for second in range(30))
    told = simulate("-f", breaker, "--trace", "-", "-o", "json", stdin="at,outcome\n" + lines).json
    assert (told["from"], told["seconds"]) == ("2026-01-01T00:00:00.000Z", 29.0)
    assert [each["at"] for each in told["runs"][0]["transitions"][:2]] == [
        "2026-01-01T00:00:04.000Z",
        "2026-01-01T00:00:14.000Z",
    ]


def test_what_is_expected_decides_the_exit_code(simulate: Simulate, breaker: str) -> None:
    simulate("-f", breaker, *MADE, "--expect", "opens")
    assert "it opened, and --expect says stays-closed" in simulate(
        "-f", breaker, *MADE, "--expect", "stays-closed", code=6
    ).err  # fmt: skip


def test_the_operator_s_defaults_can_be_said(simulate: Simulate, breaker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CB_FAILURE_THRESHOLD", "7")
    told = simulate("-f", breaker, *MADE, "-o", "json").json
    assert told["runs"][0]["policy"]["failureThreshold"] == 7
    monkeypatch.setenv("CB_FAILURE_THRESHOLD", "many")
    assert "CB_FAILURE_THRESHOLD" in simulate("-f", breaker, *MADE, code=2).err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say which calls: --trace calls.csv, or --rate 50"),
        (("--trace", "x", "--rate", "1"), "one of both"),
        (("--trace", "x", "--failures", "5%"), "go with --rate"),
        (("--trace", "/nowhere.csv"), "/nowhere.csv cannot be read: No such file or directory"),
        (("--rate", "1", "--for", "soon"), "--for: 'soon' is not a duration"),
        (("--rate", "1", "--failures", "lots"), "--failures: 'lots' is no share"),
        (("--rate", "100000", "--for", "1h"), "is 360000000 calls; it must be 1 to 1000000"),
        (("--rate", "1", "--compare", "-", "--trace", "-"), "read once only"),
    ],
)
def test_a_command_line_that_cannot_be(simulate: Simulate, breaker: str, arguments: Any, words: str) -> None:
    done = simulate("-f", breaker, *arguments, code=2)
    assert words in done.err
    assert done.out == ""


def test_a_terminal_gets_colours(breaker: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path, tmp_path, "unused")
    object.__setattr__(shell, "command", lambda *arguments: [str(PROGRAM), *arguments])
    shown = shell.at_terminal("simulate", "-f", breaker, *MADE).out
    assert "\x1b[" in shown
    shell.environment["NO_COLOR"] = "1"
    assert "38;" not in shell.at_terminal("simulate", "-f", breaker, *MADE).out


def test_hostile_files_are_shown_harmless(simulate: Simulate, tmp_path: Path) -> None:
    hostile = "[red]up[/red]\x1b[2J\u202e"
    path = tmp_path / f"{hostile.replace('/', '')}.yaml"
    path.write_text(HEAD + f"metadata: {{namespace: {json.dumps(hostile)}, name: '[link=x]'}}\n", encoding="utf-8")
    for form in ("text", "json", "yaml"):
        out = simulate("-f", str(path), *MADE, "-o", form).out
        assert not set(out) & set("\x1b\u202e")
    assert "[red]up" in simulate("-f", str(path), *MADE).out
    path.write_bytes(b"kind: \xff\n")
    assert "line 1 is no UTF-8" in simulate("-f", str(path), *MADE, code=2).err


def test_the_sample_opens_the_sample(simulate: Simulate) -> None:
    told = simulate("-f", str(SAMPLE / "breaker.yaml"), "--trace", str(SAMPLE / "incident.csv"), "-o", "json").json
    assert told["runs"][0]["openings"] > 0
