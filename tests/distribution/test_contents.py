"""The wheel and the sdist hold what is needed, and nothing else; the same commit gives the same bytes."""

import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

from scripts import version

from tests.distribution.conftest import EPOCH, ROOT, Distributions, make

PACKAGES = {
    "circuitbreaker_contract": "contract",
    "circuitbreaker_conformance": "contract",
    "circuitbreaker_client": "clients/python",
    "circuitbreaker_operator": "operator",
    "circuitbreaker_cli": "cli",
}
SOURCES = ("contract", "clients", "operator", "cli")
BESIDE = ("CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml")


def files(folder: Path) -> Iterator[Path]:
    """What is in the repository of that folder: no bytecode."""
    yield from (each for each in folder.rglob("*") if each.is_file() and each.suffix != ".pyc")


def expected_in_the_wheel() -> dict[str, Path]:
    found = {
        str(each.relative_to(ROOT / root)): each
        for package, root in PACKAGES.items()
        for each in files(ROOT / root / package)
    }
    vectors = ROOT / "contract" / "vectors"
    return found | {f"circuitbreaker_conformance/vectors/{each.relative_to(vectors)}": each for each in files(vectors)}


def test_the_wheel(made: Distributions) -> None:
    number = version.current()
    assert made.wheel.name == f"circuitbreakers-{number}-py3-none-any.whl"
    expected = expected_in_the_wheel()
    needed = {"circuitbreaker_contract/functions/cb_acquire.lua", "circuitbreaker_operator/page/index.html"}
    needed |= {"circuitbreaker_conformance/vectors/fleet.yaml", *(f"{package}/py.typed" for package in PACKAGES)}
    assert needed <= set(expected)
    about = f"circuitbreakers-{number}.dist-info"
    with zipfile.ZipFile(made.wheel) as wheel:
        assert {name: wheel.read(name) for name in wheel.namelist() if not name.startswith(about)} == {
            name: path.read_bytes() for name, path in expected.items()
        }
        names = {name.removeprefix(f"{about}/") for name in wheel.namelist() if name.startswith(about)}
        assert names == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
        metadata = Parser().parsestr(wheel.read(f"{about}/METADATA").decode())
    assert (metadata["Name"], metadata["Version"]) == ("circuitbreakers", number)
    assert metadata["License-Expression"] == "Apache-2.0"


def test_the_sdist(made: Distributions) -> None:
    """What the wheel is made of, and what a reader looks for."""
    top = f"circuitbreakers-{version.current()}"
    assert made.sdist.name == f"{top}.tar.gz"
    expected = {each for folder in SOURCES for each in files(ROOT / folder)} | {ROOT / name for name in BESIDE}
    with tarfile.open(made.sdist) as sdist:
        held = {member.name: sdist.extractfile(member).read() for member in sdist if member.isfile()}
        assert {member.mtime for member in sdist} == {int(EPOCH)}
        assert {member.mode & 0o777 for member in sdist if member.isfile()} == {0o644}
    wanted = {f"{top}/{each.relative_to(ROOT)}": each.read_bytes() for each in expected}
    assert held.keys() - wanted.keys() == {f"{top}/PKG-INFO", f"{top}/.gitignore"}  # the two that hatchling adds
    assert {name: held.get(name) for name in wanted} == wanted


def test_the_same_commit_gives_the_same_bytes(made: Distributions, tmp_path: Path) -> None:
    """Elsewhere, by somebody whose files nobody else may read, and at another time."""
    checkout = tmp_path / "elsewhere"
    checkout.mkdir()
    for name in (*BESIDE, *SOURCES, ".gitignore", "Makefile", "build-requirements.txt", "scripts", "uv.lock"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, checkout / name, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, checkout / name)
    (checkout / "scripts" / "uv").chmod(0o700)
    (checkout / "operator" / "circuitbreaker_operator" / "cli.py").chmod(0o600)
    again = make(tmp_path / "dist", checkout, umask=0o077)
    for one, other in ((made.wheel, again.wheel), (made.sdist, again.sdist)):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes(), one.name
