"""What `make dist` makes, once for all tests of it."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EPOCH = "1700000000"


@dataclass(frozen=True)
class Distributions:
    """The two files of a version."""

    wheel: Path
    sdist: Path


def make(folder: Path, checkout: Path = ROOT, umask: int = -1) -> Distributions:
    """`make dist` of `checkout` into `folder`, as of a commit of a time that is known."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "--directory", str(checkout), "dist", f"DIST={folder}"],
        env=clean | {"SOURCE_DATE_EPOCH": EPOCH},
        capture_output=True,
        text=True,
        check=False,
        umask=umask,
    )
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Distributions(wheel, sdist)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    return make(tmp_path_factory.mktemp("dist"))
