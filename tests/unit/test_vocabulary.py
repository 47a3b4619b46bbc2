"""One vocabulary: docs/vocabulary.md says it, and page, plugin, resource and docs use the same words and colours."""

import colorsys
import re
from pathlib import Path

import yaml

from circuitbreaker_cli import marks, words
from circuitbreaker_contract.state import Reason, State

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "operator" / "circuitbreaker_operator" / "page"
VOCABULARY = (ROOT / "docs" / "vocabulary.md").read_text(encoding="utf-8")
LEGIBLE = 3.0  # WCAG 2.2, 1.4.11: of a mark against its ground
STATES = {name: (mark, colour) for name, mark, colour in re.findall(r"\| `(\w+)` \| (\S) \| `(#\w{6})`", VOCABULARY)}


def channels(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour.lstrip("#")[place : place + 2], 16) / 255 for place in (0, 2, 4))
    return red, green, blue


def hue_degrees(colour: str) -> float:
    return colorsys.rgb_to_hsv(*channels(colour))[0] * 360


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels(colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def schemes() -> dict[str, dict[str, str]]:
    """The page's colours by name, in light and in dark."""
    light, dark = re.findall(r":root \{(.*?)\}", (PAGE / "style.css").read_text(encoding="utf-8"), re.DOTALL)[:2]
    read = [dict(re.findall(r"--([\w-]+): (#\w{6});", block)) for block in (light, dark)]
    return {"light": read[0], "dark": read[0] | read[1]}


def test_the_states_are_the_contract_s() -> None:
    assert list(STATES) == [state.value for state in (State.CLOSED, State.HALF_OPEN, State.OPEN)]
    crd = yaml.safe_load((ROOT / "crds" / "circuitbreakers.yaml").read_text(encoding="utf-8"))
    status = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    assert set(status["state"]["enum"]) == set(STATES)


def test_the_page_has_these_colours() -> None:
    """In both schemes; a mark, or the edge that it has, stands out from its ground, and text is ink on ground."""
    for colours in schemes().values():
        assert {name: colours[name].upper() for name in STATES} == {
            name: colour for name, (_, colour) in STATES.items()
        }
        edges = {name: colours["edge"] if name == "HalfOpen" else colours[name] for name in STATES}
        for ground in ("ground", "raised"):
            assert {name for name, colour in edges.items() if contrast(colour, colours[ground]) < LEGIBLE} == set()
            assert contrast(colours["ink"], colours[ground]) >= 7.0
            assert contrast(colours["muted"], colours[ground]) >= 4.5


def test_the_plugin_has_shades_of_them() -> None:
    """Of the same hue, and to be read on black and on white."""
    for state, style in marks.STYLES.items():
        colour = re.search(r"#\w{6}", style)
        assert colour is not None
        assert abs(hue_degrees(colour[0]) - hue_degrees(STATES[state.value][1])) < 10, state
        assert min(contrast(colour[0], ground) for ground in ("#ffffff", "#000000")) >= LEGIBLE, state


def test_the_plugin_has_these_marks() -> None:
    """Beside every state that it shows, at a terminal; the word is always there, and all that a program gets."""
    assert {state.value: mark for state, mark in marks.MARKS.items()} == {
        name: mark for name, (mark, _) in STATES.items()
    }
    for state in State:
        assert marks.state_text(state, marks.FULL).plain == f"{STATES[state.value][0]} {state.value}"
        assert marks.state_text(state, marks.ASCII).plain == state.value
        assert marks.state_text(state, marks.FULL).style == marks.STYLES[state]
    assert marks.state_text("", marks.FULL).plain == words.UNKNOWN
    for name in (
        *(f"breakers/{each}" for each in ("listing", "describing", "transitions", "changes", "ranking")),
        "commands/top",
    ):
        told = (ROOT / "cli" / "circuitbreaker_cli" / f"{name}.py").read_text(encoding="utf-8")
        calls = re.findall(r"state_text\(.*?glyphs\)", told), re.findall(r"(?<!def )state_text\(", told)
        assert len(calls[0]) == len(calls[1]) > 0, f"{name}: a state without its mark"


def test_the_strip_rises_as_on_the_page() -> None:
    """The higher, the fewer calls pass."""
    drawing = (PAGE / "drawing.js").read_text(encoding="utf-8")
    heights = dict(re.findall(r"(\w+): (\d+)", re.search(r"HEIGHTS = \{(.*?)\}", drawing)[1]))  # type: ignore[index]
    order = sorted(State, key=lambda state: int(heights[state.value]))
    assert order == sorted(State, key=lambda state: ord(marks.FULL.heights[state])) == list(reversed(marks.WORST_FIRST))


def test_every_reason_is_explained() -> None:
    """Where docs/vocabulary.md points to; what is of messages only, or of newer editions, is not."""
    told = (ROOT / "docs" / "operator.md").read_text(encoding="utf-8")
    hidden = {Reason.POLICY_APPLIED, Reason.DELETED, Reason.WOULD_HAVE_OPENED, Reason.UNKNOWN}
    assert {reason.value for reason in Reason if f"`{reason.value}`" not in told and reason not in hidden} == set()
    assert "operator.md#what-a-status-says" in VOCABULARY
    assert "## What a status says" in told


def test_the_words_are_those_of_the_code() -> None:
    """Each name in the last column is one that a spec, a status or a metric has."""
    known = "".join(
        (ROOT / path).read_text(encoding="utf-8")
        for path in ("crds/circuitbreakers.yaml", "operator/circuitbreaker_operator/exposition.py", "docs/operator.md")
    )
    table = VOCABULARY.split("## Words")[1].split("## Units")[0]
    names = [
        name for line in table.splitlines() for name in re.findall(r"`([\w-]+)`", line.strip("| ").rpartition("|")[2])
    ]
    assert names
    assert [name for name in names if name not in known] == []
    columns = (PAGE / "app.js").read_text(encoding="utf-8")
    plugin = (ROOT / "cli" / "circuitbreaker_cli" / "breakers" / "listing.py").read_text(encoding="utf-8")
    for title in ("Name", "State", "Reason", "Rate", "Failures", "Refused", "Retry in", "Since"):
        assert f'title: "{title}"' in columns
        assert f'"{title.upper().replace(" ", "-")}"' in plugin
