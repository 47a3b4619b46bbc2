"""The version is that of pyproject.toml: prints it, checks the files that repeat it, or sets it in all of them.

Programs read it from the installed distribution. A manifest, a label or a line to copy cannot: `make version V=0.2.0`
writes it there. Exit status: 0 they agree, 1 they do not, 2 that is no version.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
# One spelling for a wheel (PEP 440), an image's tag and a git tag.
VERSION: Final = r"(?P<version>\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?)"
_SOURCE: Final = "pyproject.toml"
# files -> how the version stands in them, as often as it does
_PLACES: Final = {
    _SOURCE: rf'^version = "{VERSION}"$',
    "uv.lock": rf'^name = "circuitbreakers"\nversion = "{VERSION}"$',
    "Dockerfile": rf"^ARG VERSION={VERSION}$",
    "manifests/**/*.yaml": rf"circuitbreaker-operator(?::|\n +newTag: ){VERSION}$",
    "docs/**/*.md": rf"(?:circuitbreaker-operator:|circuitbreaker-operator/blob/v|\?ref=v){VERSION}\b",
}


def current(root: Path = ROOT) -> str:
    """The version of the checkout."""
    version: str = tomllib.loads((root / _SOURCE).read_text(encoding="utf-8"))["project"]["version"]
    return version


def problems(root: Path = ROOT) -> list[str]:
    """A sentence for each place that says another version than pyproject.toml, and for each kind that is nowhere."""
    version = current(root)
    found = []
    for files, pattern in _PLACES.items():
        matches = list(_matches(root, files, pattern))
        if not matches:
            found.append(f"{files}: the version is not there in the form that scripts/version.py looks for")
        for path, match in matches:
            if match["version"] != version:
                line = match.string.count("\n", 0, match.start("version")) + 1
                found.append(f"{path.relative_to(root)}:{line}: says {match['version']}, and {_SOURCE} {version}")
    return found


def write(version: str, root: Path = ROOT) -> list[Path]:
    """Puts `version` into every place; returns the files that changed. Raises ValueError when it is none."""
    if not re.fullmatch(VERSION, version):
        raise ValueError(f"{version!r} is no version: MAJOR.MINOR.PATCH, and a1, b1 or rc1 behind it before a release")
    changed = []
    for files, pattern in _PLACES.items():
        for path in dict.fromkeys(path for path, _ in _matches(root, files, pattern)):
            before = path.read_text(encoding="utf-8")
            after = re.sub(pattern, lambda match: _with(match, version), before, flags=re.MULTILINE)
            if after != before:
                path.write_text(after, encoding="utf-8")
                changed.append(path)
    return changed


def _matches(root: Path, files: str, pattern: str) -> Iterator[tuple[Path, re.Match[str]]]:
    for path in sorted(root.glob(files)):
        for match in re.finditer(pattern, path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            yield path, match


def _with(match: re.Match[str], version: str) -> str:
    start, end = (each - match.start() for each in match.span("version"))
    return f"{match[0][:start]}{version}{match[0][end:]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", nargs="?", help="what to set; without it, check")
    given = parser.parse_args()
    if given.version:
        try:
            for path in write(given.version):
                print(path.relative_to(ROOT))
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
    print(current())
    if found := problems():
        print(*found, f"make version V={current()} puts that right", sep="\n", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
