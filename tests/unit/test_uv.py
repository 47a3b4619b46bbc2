"""scripts/uv where there is no uv: the one that is pinned, by its hashes. Its Python is a stand-in here."""

import os
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[2]
TOOLS = ("cat", "chmod", "dirname", "find", "mkdir", "mktemp", "mv", "rm", "sed", "sh")
DAY_SECONDS = 24 * 3600
# `python3 -m venv FOLDER` makes a Python whose `-m pip` writes down what it is asked, and brings a uv.
PYTHON = r"""
[ "$1 $2" = "-m venv" ] || exit 0
mkdir -p "$3/bin"
cat >"$3/bin/python" <<'END'
#!/bin/sh
echo "$*" >"$ASKED"
uv="${0%/*}/uv"
printf '#!/bin/sh\necho uv $*\n' >"$uv"
chmod +x "$uv"
END
chmod +x "$3/bin/python"
"""
Uv = Callable[[Path], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def uv(tmp_path: Path) -> Uv:
    """Runs it with a cache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        (folder / name).symlink_to(shutil.which(name) or name)
    (folder / "python3").write_text(f"#!/bin/sh\n{PYTHON}")
    (folder / "python3").chmod(0o755)

    def run(cache: Path) -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": str(folder), "CB_CACHE_DIR": str(cache), "ASKED": str(tmp_path / "asked")}
        words = [str(ROOT / "scripts" / "uv"), "sync"]
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)

    return run


def test_the_pinned_one_is_installed_once(uv: Uv, tmp_path: Path) -> None:
    (pinned,) = (
        each.removeprefix("uv==").split()[0]
        for each in (ROOT / "build-requirements.txt").read_text(encoding="utf-8").splitlines()
        if each.startswith("uv==")
    )
    assert uv(tmp_path).stdout == "uv sync\n"
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:3] == ["-m", "pip", "install"]
    assert asked[-5:] == [
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--requirement",
        str(ROOT / "build-requirements.txt"),
    ]
    (tmp_path / "asked").unlink()
    assert uv(tmp_path).stdout == "uv sync\n"
    assert not (tmp_path / "asked").exists()
    assert [path.name for path in (tmp_path / "uv").iterdir()] == [pinned]


def test_what_one_that_was_killed_has_left_is_removed(uv: Uv, tmp_path: Path) -> None:
    """A young folder may be of one that installs at this moment."""
    for name, age_seconds in (("old", 2 * DAY_SECONDS), ("young", 0)):
        (tmp_path / f".uv-{name}").mkdir()
        os.utime(tmp_path / f".uv-{name}", times=(time.time() - age_seconds,) * 2)
    assert uv(tmp_path).returncode == 0
    assert [path.name for path in tmp_path.glob(".uv-*")] == [".uv-young"]


def test_a_cache_that_cannot_be_written(uv: Uv, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = uv(tmp_path / "file")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("/file cannot be written: set CB_CACHE_DIR to a folder of yours\n")


def test_the_project_takes_the_pinned_one() -> None:
    """It is not older than `required-version`, which an older one on PATH fails."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (pinned,) = (each for each in project["dependency-groups"]["build"] if each.startswith("uv=="))
    oldest = project["tool"]["uv"]["required-version"]
    assert Version(pinned.removeprefix("uv==")) in SpecifierSet(oldest)
