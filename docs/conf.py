"""The site, built by `make docs`: nothing of it comes from elsewhere, and it opens without a server.

Its source is the repository, not this folder: a link between two files holds in the site and at a code host alike.
Every link and anchor is checked while it is built, and whatever is found is an error there.
"""

import posixpath
from importlib.metadata import version as installed
from typing import Final

from docutils import nodes
from sphinx.application import Sphinx

# What the bar at the side shows, in a reader's order. A page that is missing here is an error of the build.
CONTENTS: Final = {
    "Start": (
        *("docs/concepts", "docs/install", "docs/client"),
        *("examples/README", "examples/kubernetes/README", "examples/mcp-app/README"),
        "docs/faq",
    ),
    "Operate": (
        "docs/operator",
        "docs/page",
        "docs/cli",
        "docs/monitoring",
        "docs/gitops",
        "docs/redis",
        "docs/several-clusters",
        "docs/upgrade",
        "docs/uninstall",
    ),
    "When it is down": ("docs/reliability", "docs/runbooks/*"),
    "Reference": (
        "docs/reference/crd",
        "docs/reference/settings",
        "docs/reference/metrics",
        "docs/vocabulary",
        "contract/README",
        "contract/vectors/README",
    ),
    "Coming from": ("docs/migrate/*", "docs/metrics-from-resilience4j"),
    "Background": ("docs/security", "docs/comparison", "docs/critique", "CONTRIBUTING", "docs/release", "CHANGELOG"),
}

project = "circuitbreaker-operator"
version = release = installed("circuitbreakers")
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "docs/index"
include_patterns = ["docs/**", "contract/**", "examples/**", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = [".*", "**/__pycache__", "site", "tests", "local", "clients", "operator", "cli", "manifests"]
nitpicky = True
highlight_language = "none"  # of blocks that do not say what they hold
smartquotes = False  # what is copied is what was written
templates_path = ["templates"]

myst_heading_anchors = 4  # in the form of code hosts, so that one anchor holds in both

html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "start.html"}
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
# Blue as of Closed (docs/vocabulary.md), and its lighter sister where the ground is dark.
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0072B2",
        "color-brand-content": "#0072B2",
        "sidebar-item-font-size": "82%",  # names of alerts fit
    },
    "dark_css_variables": {"color-brand-primary": "#56B4E9", "color-brand-content": "#56B4E9"},
}


def _with_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Appends the contents to the start page: in its file they would be noise for who reads it as it is."""
    if page == app.config.root_doc:
        for caption, pages in CONTENTS.items():
            listed = "\n".join(f"/{each}" for each in pages)
            source[0] += f"\n\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n{listed}\n```\n"


def _with_titles(app: Sphinx, tree: nodes.document, page: str) -> None:
    """A link that is named after a file shows the title of the page instead."""
    for link in tree.findall(nodes.reference):
        if link.get("internal") and link.astext().endswith(".md"):
            target = posixpath.join(posixpath.dirname(page), link["refuri"].partition("#")[0])
            title = app.env.titles[posixpath.normpath(target).removesuffix(".html")]
            link.children = [nodes.Text(title.astext())]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _with_contents)
    app.connect("doctree-resolved", _with_titles)
