"""The Lua text: joined in order, numbered by edition, documented by its headers."""

import re
from importlib.resources import files

import pytest

from circuitbreaker_contract import library, protocol
from circuitbreaker_contract.errors import VersionError
from circuitbreaker_contract.policy import BOUNDS, Policy
from circuitbreaker_contract.protocol import Call, Version
from circuitbreaker_contract.state import Outcome

# One line an edition: the text may not change without a new number, since a lower number never replaces a higher one.
EDITIONS = {1: "12fd76fb227b2e0b", 2: "92fccf67fcdc285b", 3: "b0a2f5908ea01c00", 4: "b17a3b7bf7bc83de"}
FOLDER = files("circuitbreaker_contract") / "functions"


def test_each_edition_keeps_its_digest() -> None:
    """Changed Lua owes `library.VERSION` a new number (or this table a new digest, before a release)."""
    assert EDITIONS[library.VERSION] == library.digest()


def test_the_clock_of_tests_is_not_shipped() -> None:
    """The library reads time from Redis and from nowhere else."""
    assert library.source().count("redis.call('TIME')") == 1
    assert "test:now_ms" not in library.source()


def test_every_file_is_joined_once() -> None:
    """A Lua file that is not joined would be dead; one joined twice would not load."""
    for path in FOLDER.iterdir():
        assert library.source().count(path.read_text(encoding="utf-8")) == 1, path.name


@pytest.mark.parametrize(
    ("found", "loads"),
    [
        (None, True),
        (Version(library.CONTRACT_VERSION, library.VERSION - 1, "x"), True),
        (Version(library.CONTRACT_VERSION, library.VERSION, "x"), True),
        (Version(library.CONTRACT_VERSION, library.VERSION, library.digest()), False),
        (Version(library.CONTRACT_VERSION, library.VERSION + 1, "x"), False),
    ],
)
def test_a_lower_edition_never_replaces_a_higher(found: Version | None, loads: bool) -> None:
    """Two operators of different releases on one Redis settle on the newer library."""
    assert loads is library.should_load(found)


def test_another_contract_version_is_an_error() -> None:
    """Neither called nor replaced: its callers would break."""
    with pytest.raises(VersionError, match="contract version 2, this program 1"):
        library.should_load(Version(2, 1, "x"))


def header(function: str) -> str:
    text = (FOLDER / f"{function}.lua").read_text(encoding="utf-8")
    return text[: text.index("\n\n")] if "\n\n" in text else text


def calls() -> dict[str, Call]:
    policy = Policy.from_mapping({bounds.name: max(1, bounds.low) for bounds in BOUNDS.values() if bounds.required})
    made = [
        protocol.version(),
        protocol.configure("k", owner="o", uid="u", generation=1, policy=policy),
        protocol.acquire("k", client="c", lease="l"),
        protocol.report("k", client="c", seq=1, order=(1, 1), batch=[("S", 1)]),
        protocol.settle("k", client="c", lease="l", order=(1, 1), outcome=Outcome.SUCCESS),
        protocol.observe("k"),
        protocol.tick("k"),
        protocol.reset("k", uid="u", token="t"),
        protocol.delete("k", owner="o", uid="u"),
    ]
    return {call.function: call for call in made}


@pytest.mark.parametrize("function", library.FUNCTIONS)
def test_a_header_says_what_the_protocol_sends(function: str) -> None:
    """Keys, number of arguments and whether it writes stand in the header as the protocol has them."""
    call, text = calls()[function], header(function)
    assert text.startswith(f"-- {function}: ")
    keys, args, writes = re.search(r"KEYS +(\w+) +ARGS +(.+?) +WRITES +(yes|no)", text).groups()
    assert keys == ("breaker" if call.keys else "none")
    required = [] if args == "none" else [arg for arg in args.split(", ") if not arg.startswith("[")]
    optional = [arg for arg in args.split(", ") if arg.startswith("[")]
    assert len(required) <= len(call.args) <= len(required) + len(optional)
    assert (writes == "yes") is call.writes
    registered = (FOLDER / f"{function}.lua").read_text(encoding="utf-8")
    assert ("allow-oom" in text) is ("flags = {'allow-oom'}" in registered)
    assert (writes == "no") is ("flags = {'no-writes'}" in registered)


@pytest.mark.parametrize("function", library.FUNCTIONS)
def test_the_readme_has_every_function(function: str) -> None:
    """Arguments, reply and errors in contract/README.md are those of the header."""
    from pathlib import Path

    readme = (Path(__file__).parents[2] / "contract" / "README.md").read_text(encoding="utf-8")
    text = header(function)
    args = re.search(r"ARGS +(.+?) +WRITES", text)[1]
    reply = re.search(r"REPLY +(\{.+?\})", text)[1]
    section = readme[readme.index(f"### `{function}`") :]
    section = section[: section.find("\n### ", 1)]
    assert f"arguments: `{args}`" in section
    assert f"reply: `{reply}`" in section
    for error in re.findall(r"CB[A-Z]+", text[text.index("ERRORS") :]):
        assert error in section
