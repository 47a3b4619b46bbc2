"""When an image is built anew: whenever something changes that the build reads, and only then."""

import io
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.node import shipped
from circuitbreaker_local.node.images import ALONE, Image, _base, _key
from circuitbreaker_local.node.packages import PACKAGES
from circuitbreaker_local.progress import Report

LOCKS = ("build-requirements.txt", "uv.lock")


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """The operator's, with a small tree in the place of ours."""
    for name in ("Dockerfile", ".dockerignore", *LOCKS, "pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).write_text(name)
    for folder in ("contract", "clients", "operator"):
        (tmp_path / folder / "package").mkdir(parents=True)
        (tmp_path / folder / "package" / "module.py").write_text(folder)
    return replace(shipped.operator("dev"), dockerfile=tmp_path / "Dockerfile", context=tmp_path)


def append(name: str) -> Callable[[Path], object]:
    return lambda tree: (tree / name).write_text((tree / name).read_text() + "\n")


CHANGES: dict[str, Callable[[Path], object]] = {
    "the Dockerfile": append("Dockerfile"),
    "what it ignores": append(".dockerignore"),
    "what it ignores, in a file of its own": lambda tree: (tree / "Dockerfile.dockerignore").touch(),
    **{f"the lock file {name}": append(name) for name in LOCKS},
    "a source": append("operator/package/module.py"),
    "a new file": lambda tree: (tree / "contract" / "package" / "more.lua").touch(),
    "a file moved": lambda tree: (tree / "contract" / "package" / "module.py").rename(tree / "contract" / "module.py"),
    "a file that may be executed": lambda tree: (tree / "clients" / "package" / "module.py").chmod(0o755),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_another_image(image: Image, change: Callable[[Path], object]) -> None:
    before = _key(image)
    change(image.context)
    assert _key(image) != before


def test_an_argument_is_another_image(image: Image) -> None:
    assert len({_key(image), _key(replace(image, tag="next")), _key(replace(image, arguments={"VERSION": "x"}))}) == 3


def test_what_the_build_does_not_read_changes_nothing(image: Image, tmp_path: Path) -> None:
    """Neither does the place of the checkout."""
    before = _key(image)
    (image.context / "docs").mkdir()
    (image.context / "operator" / "package" / "module.pyc").touch()
    assert _key(image) == before
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(image.context, elsewhere, ignore=shutil.ignore_patterns("elsewhere"))
    assert _key(replace(image, dockerfile=elsewhere / "Dockerfile", context=elsewhere)) == before


def test_a_source_that_is_missing_is_said(image: Image) -> None:
    (image.context / "uv.lock").unlink()
    with pytest.raises(LocalError, match=r"uv\.lock, of which \S+ is made, is not there"):
        _key(image)


@pytest.mark.parametrize("image", [shipped.operator("dev"), shipped.sample()], ids=lambda image: image.name)
def test_sources_are_what_the_dockerfile_copies(image: Image) -> None:
    """A folder that is copied and not hashed would leave an old image in use."""
    text = image.dockerfile.read_text(encoding="utf-8")
    copied = {
        source
        for line in re.findall(r"^COPY (.*)$", text, flags=re.MULTILINE)
        if "--from" not in line
        for source in line.split()[:-1]
    }
    assert copied
    assert [each for each in copied if not any(Path(each).is_relative_to(source) for source in image.sources)] == []


def test_the_base_is_of_signed_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """debootstrap is told the keys: where it finds none by itself, it checks nothing. The tools are a stand-in."""
    tools = tmp_path / "bin" / ALONE[0]
    tools.parent.mkdir()
    makes = 'for word; do case $word in --file=*) touch "${word#--file=}";; esac; done'
    tools.write_text(f"#!/bin/sh\necho $* >>{tmp_path}/asked\n{makes}\n")
    tools.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools.parent}{os.pathsep}{os.environ['PATH']}")
    _base(tmp_path, Report(io.StringIO()))
    (asked,) = re.findall(r"debootstrap .*", (tmp_path / "asked").read_text())
    assert f"--keyring={PACKAGES['debian-archive-keyring']}" in asked.split()
    assert "gpgv" in PACKAGES
