"""What `make dist` makes can be installed into an empty environment, and runs: with the extras and without."""

import os
import re
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from scripts import version

from circuitbreaker_conformance import load
from circuitbreaker_contract import library
from tests.distribution.conftest import ROOT, Distributions

UV = str(ROOT / "scripts" / "uv")
PROGRAMS = ("circuitbreaker-operator", "circuitbreaker-conformance", "kubectl-breaker", "kubectl_complete-breaker")


@dataclass(frozen=True)
class Environment:
    """An environment that holds the distribution, its dependencies and nothing else."""

    folder: Path

    @property
    def packages(self) -> Path:
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def run(self, program: str, *words: str) -> tuple[int, str, str]:
        """How it ended, and what it said: to whom reads it, and of what is wrong."""
        done = subprocess.run(
            [str(self.folder / "bin" / program), *words],
            cwd=self.folder,
            env={"PATH": os.defpath, "HOME": str(self.folder), "TERM": "dumb"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="session")
def constraints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The versions of uv.lock, which are at hand: a new version of another's package is not what is tested here."""
    path = tmp_path_factory.mktemp("constraints") / "constraints.txt"
    what = ("--frozen", "--all-extras", "--no-dev", "--no-emit-project", "--no-hashes", "--quiet")
    subprocess.run([UV, "export", *what, "--output-file", str(path)], cwd=ROOT, check=True, capture_output=True)
    return path


def installed(folder: Path, distribution: Path, constraints: Path, extras: str = "") -> Environment:
    subprocess.run([UV, "venv", "--quiet", str(folder)], check=True)
    locked = ("--constraints", str(constraints), "--build-constraints", str(ROOT / "build-requirements.txt"))
    what = f"circuitbreakers{extras} @ {distribution.as_uri()}"
    done = subprocess.run(
        [UV, "pip", "install", "--quiet", "--python", str(folder), *locked, what],
        cwd=folder,  # no settings of the checkout
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Environment(folder)


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_alone(kind: str, made: Distributions, constraints: Path, tmp_path: Path) -> None:
    """Contract and client; what stands on an extra says in one line what to install."""
    environment = installed(tmp_path / "environment", getattr(made, kind), constraints)
    with zipfile.ZipFile(made.wheel) as wheel:  # the sdist gives the same files, so what holds of one holds of both
        files = {name: wheel.read(name) for name in wheel.namelist() if not name.endswith("/RECORD")}
    assert {name: (environment.packages / name).read_bytes() for name in files} == files
    assert environment.run("python", "-c", "import circuitbreaker_client as c; print(c.CircuitBreakers.__name__)") == (
        0,
        "CircuitBreakers\n",
        "",
    )
    assert environment.run("python", "-m", "circuitbreaker_contract") == (0, library.source(), "")
    for program, extra in zip(PROGRAMS, ("operator", "conformance", "cli", "cli"), strict=True):
        # Commands by their names are completed without typer; flags are of the commands themselves.
        words = {"circuitbreaker-conformance": ("--list",), "kubectl_complete-breaker": ("list", "--")}
        code, out, error = environment.run(program, *words.get(program, ("--version",)))
        assert (code != 0, out) == (True, ""), program
        assert re.fullmatch(rf"{program}.*: pip install 'circuitbreakers\[{extra}\]'\n", error), error
    code, out, error = environment.run("circuitbreaker-conformance", "--help")
    assert (code, error) == (0, "")
    assert out.startswith("usage: circuitbreaker-conformance ")


def test_with_extras(made: Distributions, constraints: Path, tmp_path: Path) -> None:
    environment = installed(tmp_path / "environment", made.wheel, constraints, "[operator,cli,conformance]")
    for program in ("circuitbreaker-operator", "kubectl-breaker"):
        assert environment.run(program, "--version") == (0, f"{version.current()}\n", "")
    code, out, error = environment.run("circuitbreaker-operator", "--help")
    assert (code, error) == (0, "")
    assert out.startswith("usage: circuitbreaker-operator ")
    assert environment.run("kubectl_complete-breaker", "expl") == (0, "explain\n:4\n", "")
    code, out, error = environment.run("circuitbreaker-conformance", "--list")
    assert (code, error) == (0, "")
    assert out.endswith(f"\n{len(load())} scenarios\n")
