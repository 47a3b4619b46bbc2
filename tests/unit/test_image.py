"""The Dockerfile and its inputs: what the image is built of is named by its hash, and the image runs as nobody."""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCK = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
REQUIREMENTS = ROOT / "build-requirements.txt"
SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


def instructions() -> list[str]:
    """Those of the Dockerfile, each on one line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [line.strip() for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


def commands() -> list[list[str]]:
    """The words of each command that building runs."""
    runs = [each.removeprefix("RUN ") for each in instructions() if each.startswith("RUN ")]
    return [shlex.split(command) for run in runs for command in re.split(r"&&|\|\||;|\bthen\b", run) if command.strip()]


def closure(names: Iterator[str] | list[str]) -> dict[str, dict[str, Any]]:
    """The packages of uv.lock that `names` lead to, themselves among them, whatever the markers say."""
    packages = {each["name"]: each for each in LOCK["package"]}
    found: dict[str, dict[str, Any]] = {}
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found[name] = packages[name]
            extras = packages[name].get("optional-dependencies", {}).values()
            left += [each["name"] for group in (packages[name].get("dependencies", []), *extras) for each in group]
    return found


def project() -> dict[str, Any]:
    (found,) = (each for each in LOCK["package"] if each["name"] == "circuitbreakers")
    return found


def of_the_operator() -> dict[str, dict[str, Any]]:
    ours = project()
    return closure([each["name"] for each in (*ours["dependencies"], *ours["optional-dependencies"]["operator"])])


def of_the_build() -> dict[str, dict[str, Any]]:
    return closure([each["name"] for each in project()["dev-dependencies"]["build"]])


def test_the_image() -> None:
    """Any base, a numeric user, health that Kubernetes alone asks for, and a context of what is copied from it."""
    lines = instructions()
    assert lines[0].startswith("ARG BASE_IMAGE=")
    assert [each for each in lines if each.startswith("FROM")] == ["FROM ${BASE_IMAGE} AS build", "FROM ${BASE_IMAGE}"]
    assert [each for each in lines if each.startswith("USER")] == ["USER 65532:65532"]
    assert not [each for each in lines if each.startswith(("HEALTHCHECK", "ADD"))]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = {
        source for each in lines if each.startswith("COPY ") and "--from" not in each for source in each.split()[1:-1]
    }
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_network_is_used_for_what_is_locked_alone() -> None:
    """Two commands ask a package index, for wheels whose hashes are known; the others that could are told not to."""
    assert not {Path(words[0]).name for words in commands()} & {"apt", "apt-get", "apk", "dnf", "curl", "wget", "git"}
    asked: dict[str, list[set[str]]] = {}
    for words in commands():
        (tool, *rest) = words
        if tool.endswith("/uv"):
            asked.setdefault(f"uv {rest[0]}", []).append(set(rest))
        elif rest[:2] == ["-m", "pip"] and "install" in rest and "--no-index" not in rest:
            asked.setdefault("pip install", []).append(set(rest))
    assert set(asked) == {"pip install", "uv sync", "uv build"}
    assert all({"--require-hashes", "--only-binary", REQUIREMENTS.name} <= words for words in asked["pip install"])
    assert all({"--frozen", "--no-build", "--no-install-project"} <= words for words in asked["uv sync"])
    assert all({"--offline", "--no-build-isolation"} <= words for words in asked["uv build"])


@pytest.mark.parametrize("packages", [of_the_operator(), of_the_build()], ids=["operator", "build"])
def test_every_package_has_a_wheel_and_each_wheel_its_hash(packages: dict[str, dict[str, Any]]) -> None:
    assert {"kopf", "redis"} <= set(packages) or {"hatchling", "uv"} <= set(packages)
    for name, package in packages.items():
        assert package["source"] == {"registry": "https://pypi.org/simple"}, name
        assert package["wheels"], name
        assert all(SHA256.fullmatch(wheel["hash"]) for wheel in package["wheels"]), name


def test_the_build_s_requirements_are_those_of_the_lock() -> None:
    what = ("--frozen", "--only-group", "build", "--no-emit-project", "--no-annotate", "--no-header", "--quiet")
    run = [str(ROOT / "scripts" / "uv"), "export", *what]
    exported = subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    text = REQUIREMENTS.read_text(encoding="utf-8")
    assert text.partition("\n")[2] == exported, "make lock"
    held = {
        name: (number, set(SHA256.findall(hashes)))
        for name, number, hashes in re.findall(r"^([\w.-]+)==(\S+)((?: \\\n +--hash=\S+)+)$", text, re.MULTILINE)
    }
    assert held == {
        name: (each["version"], {file["hash"] for file in (*each["wheels"], each["sdist"])})
        for name, each in of_the_build().items()
    }


def test_nothing_of_the_image_is_of_the_moment_it_was_made() -> None:
    """The time is an argument, bytecode is written under it, and sets have one order."""
    lines = instructions()
    assert [each for each in lines if each.startswith("ARG SOURCE_DATE_EPOCH")]
    ((before, run, after),) = [
        [command.split() for command in each.removeprefix("RUN ").split("&&")] for each in lines if " touch " in each
    ]
    assert before == after
    assert run == ["/opt/circuitbreaker/bin/circuitbreaker-operator", "--version"]
    assert any(re.match(r"ENV .*\bPYTHONHASHSEED=0\b", each) for each in lines)
