"""The version stands in one place, and what has to repeat it says the same."""

import re
import shutil
from importlib.metadata import version as installed
from pathlib import Path

import pytest
from scripts import version
from typer.testing import CliRunner

from circuitbreaker_cli.main import app
from circuitbreaker_operator import cli
from circuitbreaker_operator.cluster import USER_AGENT

NUMBER = "12.34.56"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What of the checkout may say a version."""
    for name in ("pyproject.toml", "uv.lock", "Dockerfile", "manifests", "docs"):
        source = version.ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    return tmp_path


def test_every_place_says_the_same() -> None:
    assert version.problems() == [], f"make version V={version.current()}"


def test_the_environment_is_of_this_version() -> None:
    assert installed("circuitbreakers") == version.current(), "scripts/uv sync --frozen --all-extras"


def test_programs_say_it(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--version"], ["version"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert (ended.value.code, capsys.readouterr().out) == (0, f"{version.current()}\n")
        done = CliRunner().invoke(app, words)
        assert (done.exit_code, done.stdout) == (0, f"{version.current()}\n")
    assert USER_AGENT.partition(" ")[0] == f"circuitbreaker-operator/{version.current()}"


def test_it_is_set_everywhere_at_once(checkout: Path) -> None:
    before = version.current(checkout)
    changed = version.write(NUMBER, checkout)
    assert version.current(checkout) == NUMBER
    assert version.problems(checkout) == []
    names = {str(path.relative_to(checkout)) for path in changed}
    assert {"pyproject.toml", "uv.lock", "Dockerfile", "docs/install.md", "manifests/base/deployment.yaml"} <= names
    lock, ours = ((root / "uv.lock").read_text(encoding="utf-8").splitlines() for root in (checkout, version.ROOT))
    assert [pair for pair in zip(ours, lock, strict=True) if len(set(pair)) > 1] == [
        (f'version = "{before}"', f'version = "{NUMBER}"')
    ]
    version.write(before, checkout)
    for path in changed:
        assert path.read_bytes() == (version.ROOT / path.relative_to(checkout)).read_bytes(), path


@pytest.mark.parametrize(
    "name",
    ["uv.lock", "Dockerfile", "manifests/base/deployment.yaml", "manifests/overlays/production/kustomization.yaml"],
)
def test_a_place_that_says_another_is_named(checkout: Path, name: str) -> None:
    path, now = checkout / name, version.current(checkout)
    text = path.read_text(encoding="utf-8")
    place = rf'(circuitbreakers"\nversion = "|ARG VERSION=|circuitbreaker-operator(?::|\n +newTag: )){re.escape(now)}'
    path.write_text(re.sub(place, rf"\g<1>{NUMBER}", text), encoding="utf-8")
    (problem,) = version.problems(checkout)
    assert re.fullmatch(rf"{re.escape(name)}:\d+: says {NUMBER}, and pyproject.toml {re.escape(now)}", problem)


def test_a_place_that_is_gone_is_missed(checkout: Path) -> None:
    (checkout / "Dockerfile").write_text("FROM scratch\n", encoding="utf-8")
    (problem,) = version.problems(checkout)
    assert problem.startswith("Dockerfile: the version is not there")


@pytest.mark.parametrize("wrong", ["", "1", "1.2", "v1.2.3", "1.2.3-rc.1", "1.2.3 ", "1.2.3.4", "latest"])
def test_what_is_no_version_changes_nothing(checkout: Path, wrong: str) -> None:
    with pytest.raises(ValueError, match="is no version"):
        version.write(wrong, checkout)
    assert version.current(checkout) == version.current()
