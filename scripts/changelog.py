"""CHANGELOG.md keeps to Keep a Changelog 1.1.0: checks it, or moves what is unreleased to a version.

    python -m scripts.changelog               what is wrong with it
    python -m scripts.changelog 0.2.0         what is unreleased becomes 0.2.0 of today, or it is said why it cannot
    python -m scripts.changelog --released    what keeps this commit from being the version that pyproject.toml says

Exit status: 0 fine, 1 not.
"""

import argparse
import datetime as dt
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from packaging.version import Version
from scripts.version import ROOT, VERSION, current

FILE: Final = ROOT / "CHANGELOG.md"
KINDS: Final = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
UNRELEASED: Final = "Unreleased"
_RELEASE: Final = re.compile(rf"{VERSION} - (?P<day>\d{{4}}-\d{{2}}-\d{{2}})(?: \[YANKED\])?")


class ChangelogError(Exception):
    """What stands in the way of a release, a line each."""


@dataclass(frozen=True)
class Section:
    """A heading of the second level, where it stands, and the lines below it."""

    title: str
    line: int
    body: tuple[str, ...]

    @property
    def release(self) -> re.Match[str] | None:
        return _RELEASE.fullmatch(self.title)

    @property
    def version(self) -> str:
        """Empty when it is not a release."""
        return self.release["version"] if self.release else ""

    @property
    def is_empty(self) -> bool:
        return not any(line.strip() for line in self.body)


def sections(text: str) -> list[Section]:
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("## ")]
    ends = [*starts[1:], len(lines)]
    return [
        Section(lines[start].removeprefix("## ").strip(), start + 1, tuple(lines[start + 1 : end]))
        for start, end in zip(starts, ends, strict=True)
    ]


def problems(text: str, version: str, tags: Collection[str]) -> list[str]:
    """What is wrong with the changelog of a checkout of `version`, whose clone has the git tags `tags`; a line each."""
    found = sections(text)
    said = [f"line {line}: {what}" for line, what in _form(text, found)]
    said += [f"line {each.line}: {what}" for each in found for what in _body(each)]
    return said + list(_versions([each.version for each in found if each.version], version, tags))


def _form(text: str, found: list[Section]) -> Iterator[tuple[int, str]]:
    if not text.startswith("# Changelog\n"):
        yield 1, "it begins with `# Changelog`"
    if not found or found[0].title != UNRELEASED:
        yield found[0].line if found else 1, f"the first section is `## {UNRELEASED}`"
    for each in found[1:]:
        if each.release is None:
            yield each.line, f"`{each.title}` is not of the form `1.2.3 - 2006-01-31`"
        elif each.is_empty:
            yield each.line, f"nothing stands under {each.title}"
    releases = [(each, match) for each in found if (match := each.release)]
    for each, match in releases:
        try:
            dt.date.fromisoformat(match["day"])
        except ValueError:
            yield each.line, f"{match['day']} is no day"
    for (_, newer), (each, older) in pairwise(releases):
        if Version(newer["version"]) <= Version(older["version"]):
            yield each.line, f"{older['version']} stands below {newer['version']}: the newest comes first"
        if newer["day"] < older["day"]:
            yield each.line, f"{older['version']} is of {older['day']}, and what stands above it of {newer['day']}"


def _body(section: Section) -> Iterator[str]:
    """Bullets, each under one of the known kinds, and each kind once."""
    kinds = [line.removeprefix("### ") for line in section.body if line.startswith("#")]
    for kind in dict.fromkeys(kinds):
        if kind not in KINDS:
            yield f"`{kind}` is none of {', '.join(KINDS)}"
        if kinds.count(kind) > 1:
            yield f"{kind} stands more than once under {section.title}"
    lines = [line for line in section.body if line]
    for before, line in pairwise(["", *lines, ""]):
        if before.startswith("#") and not line.startswith("- "):
            yield f"nothing stands under {before.removeprefix('### ')} of {section.title}"
    if lines and not lines[0].startswith("#"):
        yield f"{section.title} begins with one of {', '.join(KINDS)}"
    for line in lines:
        if not re.match(r"#|- \S|  +\S", line):
            yield f"neither a bullet nor the rest of one: {line[:40]}"


def _versions(released: list[str], version: str, tags: Collection[str]) -> Iterator[str]:
    tagged = {tag.removeprefix("v") for tag in tags}
    for each in sorted(tagged - set(released)):
        yield f"there is a tag v{each}, and no section of {each}"
    if tagged:  # a shallow clone has none
        for each in sorted(set(released) - tagged - {version}):
            yield f"there is a section of {each}, and no tag v{each}"
    newest = max(released, key=Version, default=version)
    if Version(newest) > Version(version):
        yield f"the newest section is of {newest}, and pyproject.toml says {version}"


def released(text: str, version: str, day: dt.date) -> str:
    """The changelog in which what was unreleased is of `version` and `day`. Raises ChangelogError."""
    found = sections(text)
    why = []
    if not re.fullmatch(VERSION, version):
        why.append(f"{version!r} is no version")
    elif any(Version(each.version) >= Version(version) for each in found if each.version):
        why.append(f"{version} is not above every version that is there")
    if not found or found[0].title != UNRELEASED or found[0].is_empty:
        why.append("nothing is unreleased: a release has something to say to its users")
    if why:
        raise ChangelogError("\n".join(why))
    return text.replace(f"## {UNRELEASED}\n", f"## {UNRELEASED}\n\n## {version} - {day.isoformat()}\n", 1)


def unfinished(text: str, version: str, tags: Collection[str]) -> list[str]:
    """What keeps a commit from being tagged as `version`; a line each."""
    unreleased, *rest = sections(text)
    said = []
    if not unreleased.is_empty:
        said.append(f"something is unreleased: make release V={version}")
    if not rest or rest[0].version != version:
        said.append(f"the newest section is not of {version}: make release V={version}")
    if f"v{version}" in tags:
        said.append(f"there is a tag v{version} already")
    return said


def tags() -> list[str]:
    """The versions' git tags of this clone; none where it is no clone."""
    done = subprocess.run(["git", "tag", "--list", "v*"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.split()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("version", nargs="?", help="of the release to be")
    what.add_argument("--released", action="store_true", help="whether this commit can be tagged")
    given = parser.parse_args()
    text = FILE.read_text(encoding="utf-8")
    said = problems(text, current(), tags())
    if given.released and not said:
        said = unfinished(text, current(), tags())
    if given.version and not said:
        try:
            after = released(text, given.version, dt.datetime.now(dt.UTC).date())
        except ChangelogError as error:
            said = str(error).splitlines()
        else:
            FILE.write_text(after, encoding="utf-8")
    for each in said:
        print(f"{FILE.name}: {each}", file=sys.stderr)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
