"""The site of docs/: it can be built, and nothing in it leads nowhere or comes from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "contract/README.md")),
]
LOADING = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=\"([^\"]+)\"|<link\b(?![^>]*canonical)[^>]*?href=\"([^\"]+)\""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "--conf-dir", "docs"]
    done = subprocess.run(
        [*command, ".", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, f"`make docs` says:\n{done.stderr}"
    return folder


def test_every_page_is_built(site: Path) -> None:
    """Links and anchors of all of them were checked; the start leads to the first."""
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT)).with_suffix(".html").exists(), page
    assert 'url=docs/index.html"' in (site / "index.html").read_text(encoding="utf-8")


def test_nothing_comes_from_elsewhere(site: Path) -> None:
    """It works without the internet: what a page loads is in the site."""
    loaded = set()
    for page in site.rglob("*.html"):
        for found in LOADING.findall(page.read_text(encoding="utf-8")):
            address = found[0] or found[1]
            assert not urlsplit(address).netloc, f"{page.name}: {address}"
            if not address.startswith("#"):
                file = (page.parent / urlsplit(address).path).resolve()
                assert file.is_relative_to(site), address
                assert file.exists(), address
                loaded.add(file)
    assert len(loaded) > 5
    for sheet in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", sheet.read_text(encoding="utf-8")) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    """The same settings over two pages, one of which links to what is not there."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("conf.py", "templates", "static"):
        (folder / name).symlink_to(ROOT / "docs" / name)
    (folder / "index.md").write_text("# One\n\n[a](other.md) [b](other.md#nowhere) [c](gone.md) [d](../gone.py)\n")
    (folder / "other.md").write_text("# Other\n")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--builder", "dummy", "--conf-dir", "docs", ".", "site"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    missing = re.findall(r"index\.md:\d+: WARNING: .*?'(nowhere|gone\.md|\.\./gone\.py)'", done.stderr)
    assert sorted(missing) == ["../gone.py", "gone.md", "nowhere"], done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_addresses_elsewhere_are_addresses(page: Path) -> None:
    """By their form: a test asks nobody."""
    for address in re.findall(r"\]\((\w+:[^)\s]*)\)", page.read_text(encoding="utf-8")):
        parts = urlsplit(address)
        assert parts.scheme == "https", address
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), address
        assert not set(address) & set('<>"\\ '), address


def test_tests_that_the_threat_table_names_are_there() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").split("## Threats")[1].split("\n## ")[0]
    rows = [row for row in text.splitlines() if row.startswith("| ") and not row.startswith("| threat")]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`(\w+/(?:test_\w+\.py)?)`", row.split(" | ")[-1])
        assert named, row
        assert [each for each in named if not (ROOT / "tests" / each).exists()] == []
