"""What others wrote comes to the terminal without power over it."""

from typing import Any

import pytest

from circuitbreaker_cli.breakers import changes, describing, explaining, last_hour, listing, ranking, transitions
from circuitbreaker_cli.breakers.view import View
from tests.cli.shell import Shell
from tests.cluster.world import API, PLURAL, World

HOSTILE = "[red]up[/red] \x1b[2J\x1b]0;title\x07 \x9b31m \u202egnihton [link=http://evil]x[/link] \r\n\x7f"
FORBIDDEN = set("\x1b\x07\x9b\u202e\r\x7f")


def test_a_hostile_status_is_printed_harmless(world: World, shell: Shell) -> None:
    """Written past the operator, by somebody who may patch statuses."""
    world.create("payments")
    status = {
        "state": "Open",
        "reason": HOSTILE,
        "message": HOSTILE,
        "policy": {"recoveryTimeout": "\x1b[31m", "override": {"state": "Open", "reason": HOSTILE}},
        "transitions": [
            {"from": "", "to": "Open", "at": "2026-01-01T00:00:00Z", "reason": HOSTILE, "stateGeneration": 1}
        ],
        "forced": True,
    }
    world.objects.patch_namespaced_custom_object_status(*API, world.namespace, PLURAL, "payments", {"status": status})
    live = [
        ["history", "payments"],
        ["history", "payments", "-o", "json"],
        ["top"],
        ["watch", "--initial", "--for", "100ms"],
        ["watch", "--initial", "--for", "100ms", "-o", "json"],
    ]
    for command in (["list"], ["list", "-o", "json"], ["list", "-o", "yaml"], ["describe", "payments"], *live):
        assert not set(shell.run(*command).out) & FORBIDDEN - ({"\x7f"} if "json" in command else set()), command
    explained = shell.run("explain", "payments").out
    assert not set(explained) & FORBIDDEN
    assert "[red]up[/red]" in explained  # shown as it is written, and not obeyed
    shown = shell.at_terminal("explain", "payments").out
    assert "[red]up[/red]" in shown
    assert "\x1b[2J" not in shown
    assert "\x1b]" not in shown


@pytest.mark.parametrize(
    "wrong", [None, 7, "text", [1], {"a": 1}, {"state": 7, "conditions": [3], "window": 4, "transitions": 7}]
)
def test_a_status_of_another_shape_is_no_crash(wrong: Any) -> None:
    view = View({"metadata": {"namespace": "shop", "name": "pay"}, "status": wrong, "spec": wrong})
    assert explaining.why(view, 0)
    assert explaining.next_steps(view, 0)
    assert "shop/pay" in describing.page(view, 0).plain
    assert listing.table([view], 0, namespaces=True, wide=True).row_count == 1
    entries, _ = transitions.of_status(view)
    assert transitions.table(entries, 0, wide=True).row_count == 0
    assert last_hour.spans(entries, view.state, view.since_ms, 0) == []
    assert changes.Ledger([view]).listed([view, View({})], 0) == []
    assert "shop/pay" in changes.line(changes.initial(view, 0), namespaces=True, width=9).plain
    board = ranking.Board()
    for now_ms in (0, 9_000):
        board.take([ranking.of_status(view)], now_ms)
    assert ranking.table(board.rows(ranking.Sort.REFUSED), 0, namespaces=True).row_count == 1
