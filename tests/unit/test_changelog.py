"""CHANGELOG.md is in its form, and a release has something to say."""

import datetime as dt

import pytest
from scripts import changelog, version

GOOD = """\
# Changelog

What a user sees.

## Unreleased

### Added

- A thing
  of two lines.

## 0.2.0 - 2026-02-01

### Fixed

- Another.

### Security

- One more.

## 0.1.0 - 2026-01-31 [YANKED]

### Added

- The first.
"""
TAGS = ["v0.1.0", "v0.2.0"]
DAY = dt.date(2026, 3, 1)

WRONG = {
    "another title": ("# Changelog", "# History", "line 1: it begins with `# Changelog`"),
    "no Unreleased": ("## Unreleased\n\n### Added\n\n- A thing\n  of two lines.\n\n", "", "the first section is"),
    "Unreleased below": ("## Unreleased", "## 0.3.0 - 2026-02-02", "the first section is"),
    "a version without a date": ("0.2.0 - 2026-02-01", "0.2.0", "line 12: `0.2.0` is not of the form"),
    "a date as Americans have it": ("2026-02-01", "02/01/2026", "is not of the form"),
    "a day that is none": ("2026-02-01", "2026-02-30", "line 12: 2026-02-30 is no day"),
    "a version that is none": ("## 0.2.0", "## v0.2", "is not of the form"),
    "an older version above": ("## 0.1.0", "## 0.3.0", "line 22: 0.3.0 stands below 0.2.0"),
    "the same version twice": ("## 0.1.0", "## 0.2.0", "line 22: 0.2.0 stands below 0.2.0"),
    "an older day above": ("2026-01-31", "2026-02-02", "line 22: 0.1.0 is of 2026-02-02"),
    "an unknown kind": ("### Fixed", "### Fixes", "line 12: `Fixes` is none of Added, Changed"),
    "a kind twice": ("### Security", "### Fixed", "line 12: Fixed stands more than once under 0.2.0"),
    "a kind with nothing": ("- Another.\n", "", "line 12: nothing stands under Fixed of 0.2.0"),
    "a last kind with nothing": ("- The first.\n", "", "line 22: nothing stands under Added of 0.1.0"),
    "a release with nothing": ("### Added\n\n- The first.\n", "", "nothing stands under 0.1.0"),
    "bullets before a kind": ("### Fixed\n", "", "begins with one of Added"),
    "prose": ("- Another.", "Another.", "neither a bullet nor the rest of one: Another."),
}


def test_ours() -> None:
    text = changelog.FILE.read_text(encoding="utf-8")
    assert changelog.problems(text, version.current(), changelog.tags()) == []


def test_a_good_one() -> None:
    for tags in (TAGS, [], ["v0.1.0"]):
        assert changelog.problems(GOOD, "0.2.0", tags) == []
    assert changelog.problems(GOOD, "0.3.0", TAGS) == []


@pytest.mark.parametrize(("old", "new", "expected"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_said(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    said = changelog.problems(GOOD.replace(old, new, 1), "0.3.0", [])
    assert any(expected in each for each in said), said


def test_tags_and_pyproject_have_a_say() -> None:
    assert changelog.problems(GOOD, "0.3.0", ["v0.1.0"]) == ["there is a section of 0.2.0, and no tag v0.2.0"]
    assert changelog.problems(GOOD, "0.3.0", [*TAGS, "v0.1.1"]) == ["there is a tag v0.1.1, and no section of 0.1.1"]
    assert changelog.problems(GOOD, "0.2.0rc1", TAGS) == [
        "the newest section is of 0.2.0, and pyproject.toml says 0.2.0rc1"
    ]


def test_a_release_moves_what_is_unreleased() -> None:
    after = changelog.released(GOOD, "0.3.0", DAY)
    unreleased, newest, *_ = changelog.sections(after)
    assert unreleased.is_empty
    assert (newest.title, newest.body) == ("0.3.0 - 2026-03-01", changelog.sections(GOOD)[0].body)
    assert changelog.problems(after, "0.3.0", TAGS) == []
    assert after.replace("## 0.3.0 - 2026-03-01\n\n", "", 1) == GOOD


@pytest.mark.parametrize(
    ("number", "why"),
    [
        ("0.2.0", "0.2.0 is not above every version that is there"),
        ("0.2.0rc2", "0.2.0rc2 is not above"),
        ("0.1.9", "0.1.9 is not above"),
        ("v0.3.0", "'v0.3.0' is no version"),
    ],
)
def test_a_version_that_cannot_be_released(number: str, why: str) -> None:
    with pytest.raises(changelog.ChangelogError, match=why):
        changelog.released(GOOD, number, DAY)


def test_a_release_with_nothing_to_say() -> None:
    after = changelog.released(GOOD, "0.3.0", DAY)
    with pytest.raises(changelog.ChangelogError, match="nothing is unreleased"):
        changelog.released(after, "0.4.0", DAY)


def test_what_can_be_tagged() -> None:
    after = changelog.released(GOOD, "0.3.0", DAY)
    assert changelog.unfinished(after, "0.3.0", TAGS) == []
    assert changelog.unfinished(after, "0.3.0", [*TAGS, "v0.3.0"]) == ["there is a tag v0.3.0 already"]
    assert changelog.unfinished(after, "0.4.0", TAGS) == ["the newest section is not of 0.4.0: make release V=0.4.0"]
    assert changelog.unfinished(GOOD, "0.2.0", []) == ["something is unreleased: make release V=0.2.0"]
    assert len(changelog.unfinished("# Changelog\n\n## Unreleased\n", "0.1.0", [])) == 1
