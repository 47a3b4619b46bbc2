"""Joins the Lua files into the one text that Redis loads, and says which of two libraries has to be there.

Version rules. `CONTRACT_VERSION` is what callers speak; a library of another contract version is never replaced and
never called (VersionError). Within it `VERSION` counts editions of the text: a higher edition replaces a lower one and
never the reverse, so that an old operator beside a new one does no harm. A test holds each edition to its digest, so
that the text cannot change without a new number.
"""

import hashlib
from functools import cache
from importlib.resources import files

from circuitbreaker_contract.errors import VersionError
from circuitbreaker_contract.protocol import Version

NAME = "circuitbreaker"
CONTRACT_VERSION = 1
VERSION = 4

_SHARED = ("laws", "clock", "arguments", "policy", "breaker", "older", "window", "rules", "project", "save", "quick")
FUNCTIONS = (
    "cb_version",
    "cb_configure",
    "cb_acquire",
    "cb_report",
    "cb_settle",
    "cb_observe",
    "cb_tick",
    "cb_reset",
    "cb_delete",
)


@cache
def source() -> str:
    """The text for `FUNCTION LOAD`."""
    return joined()


@cache
def digest() -> str:
    """The first 16 hex digits of the SHA-256 of what the files hold."""
    return _digest_of(_body({}))


def joined(replaced: dict[str, str] | None = None) -> str:
    """The text with some files replaced, `{file's stem: text}`. Tests hand in a clock that they can set."""
    body = _body(replaced or {})
    return "\n".join(
        (
            f"#!lua name={NAME}",
            f"local CONTRACT_VERSION, LIBRARY_VERSION, DIGEST = {CONTRACT_VERSION}, {VERSION}, '{_digest_of(body)}'",
            body,
        )
    )


def should_load(found: Version | None) -> bool:
    """Whether our library has to be loaded over what `cb_version` found (None: nothing answers to that name).

    The same edition with another digest is a build under development: ours is loaded. Raises VersionError when what is
    there speaks another contract version.
    """
    if found is None:
        return True
    if found.contract != CONTRACT_VERSION:
        raise VersionError(
            f"the library in Redis speaks contract version {found.contract}, this program {CONTRACT_VERSION}; "
            "use a program of that version, or another Redis"
        )
    return found.library < VERSION or (found.library == VERSION and digest() != found.digest)


def _body(replaced: dict[str, str]) -> str:
    folder = files(__package__) / "functions"

    def text(stem: str) -> str:
        return replaced.get(stem) or (folder / f"{stem}.lua").read_text(encoding="utf-8")

    # Lua allows 200 local names at once; what a function has for itself ends with it.
    return "\n".join((*(text(stem) for stem in _SHARED), *(f"do\n{text(stem)}end" for stem in FUNCTIONS)))


def _digest_of(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]
