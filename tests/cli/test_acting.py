"""trip, hold-closed, release, reset: what they write, what they refuse, what they wait for."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.waiting import wait_until
from circuitbreaker_operator import times
from tests.cli.shell import Shell
from tests.cluster.world import API, PLURAL, World


def test_a_trip_is_in_force_when_the_command_ends(operated: World, shell: Shell) -> None:
    operated.create("payments")
    operated.until_ready("payments")
    done = shell.run("trip", "payments", "--reason", "maintenance", "--for", "10m", "--yes")
    assert "every call is refused" in done.err
    assert "held Open: maintenance, and in force" in done.err
    status = operated.status("payments")
    assert (status["state"], status["forced"]) == ("Open", True)
    assert operated.fleet("payments").acquire("lease-1").decision == "NotPermitted"
    assert set(operated.get("payments")["spec"]["override"]) == {"state", "reason", "until"}
    explained = shell.run("explain", "payments").out
    assert "spec.override was last set by kubectl-breaker" in explained
    operated.until(lambda: "CircuitForced" in operated.events("payments"), "the Event")


def test_another_hold_takes_its_place_and_a_release_ends_it(operated: World, shell: Shell) -> None:
    operated.create("payments")
    operated.until_ready("payments")
    shell.run("trip", "payments", "--reason", "maintenance", "--for", "10m", "-y")
    done = shell.run("hold-closed", "payments", "--reason", "let them through", "-y")
    assert "takes the place of an override Open (maintenance), set by kubectl-breaker" in done.err
    override = operated.get("payments")["spec"]["override"]
    assert override == {"state": "Closed", "reason": "let them through"}  # the end of the earlier one is gone
    shell.run("release", "payments", "-y")
    assert "override" not in operated.get("payments")["spec"]
    assert "forced" not in operated.status("payments")
    assert "nothing to release" in shell.run("release", "payments", "-y").err


def test_a_reset_closes_it_each_time(operated: World, shell: Shell) -> None:
    operated.create("payments", recoveryTimeout="1h")
    operated.until_ready("payments")
    fleet = operated.fleet("payments")
    for _ in range(2):
        fleet.open()
        operated.until_state("payments", "Open")
        assert "becomes Closed at once" in shell.run("reset", "payments", "-y").err
        assert operated.status("payments")["state"] == "Closed"


def test_a_question_wants_a_terminal_and_a_yes(operated: World, shell: Shell) -> None:
    operated.create("payments")
    operated.until_ready("payments")
    trip = ("trip", "payments", "--reason", "maintenance")
    assert "say --yes" in shell.run(*trip, code=3).err
    assert "nothing was changed" in shell.at_terminal(*trip, answer="n", code=3).out
    shell.run(*trip, "--dry-run")
    assert "override" not in operated.get("payments")["spec"]
    assert "in force" in shell.at_terminal(*trip, answer="y").out
    assert operated.status("payments")["state"] == "Open"


def test_what_another_person_did_while_the_question_stood(operated: World, shell: Shell) -> None:
    """Their override is not taken away by a yes to something else; a status that was written meanwhile is no matter."""
    operated.create("payments")
    operated.until_ready("payments")
    shell.run("hold-closed", "payments", "--reason", "load test", "-y")

    def incident() -> None:
        shell.run("trip", "payments", "--reason", "incident", "-y")

    for asked in (("release", "payments"), ("hold-closed", "payments", "--reason", "longer")):
        done = shell.at_terminal(*asked, answer="y", meanwhile=incident, code=4)
        assert "its override is Open (incident) meanwhile, set by kubectl-breaker; nothing was written" in done.out
        assert operated.get("payments")["spec"]["override"] == {"state": "Open", "reason": "incident"}
        shell.run("hold-closed", "payments", "--reason", "load test", "-y")

    def another_status() -> None:
        operated.patch("payments", {"metadata": {"labels": {"team": "shop"}}})

    assert "in force" in shell.at_terminal("release", "payments", answer="y", meanwhile=another_status).out
    assert "override" not in operated.get("payments")["spec"]


def test_a_length_begins_with_the_yes(operated: World, shell: Shell) -> None:
    """However long the question stood; and half a second is not over before it is written."""
    operated.create("payments")
    operated.until_ready("payments")
    began = time.time()

    def wait() -> None:
        wait_until(lambda: time.time() > began + 3, timeout_seconds=10, what="three seconds to pass")

    shell.at_terminal("trip", "payments", "--reason", "x", "--for", "1m", answer="y", meanwhile=wait)
    until = times.to_ms(operated.get("payments")["spec"]["override"]["until"]) / 1000
    assert until >= began + 3 + 60
    done = shell.run("hold-closed", "payments", "--reason", "x", "--for", "500ms", "-y", "--wait", "0")
    assert "not waited for" in done.err
    operated.until_events("payments", ["PolicyApplied", "CircuitForced", "CircuitForced", "OverrideExpired"])


KUBECTL = """#!/bin/sh
case "$*" in
*--dry-run*) ;;
*" patch "*) '{real}' "$@"; code=$?; ({after}) >&2; exit $code;;
*" get "*) if [ -s '{away}' ]; then sed -i 1d '{away}'; exec '{real}' --server=https://127.0.0.1:9 "$@"; fi;;
esac
exec '{real}' "$@"
"""


def after_the_write(shell: Shell, folder: Path, after: str) -> Shell:
    """A shell whose kubectl does something more as soon as it has written; `{away}`: a line for each get that fails."""
    real, programs, away = shell.programs / "kubectl", folder / "programs", folder / "away"
    programs.mkdir(exist_ok=True)
    away.unlink(missing_ok=True)
    here = after.format(kubectl=f"'{real}' -n {shell.namespace}", away=f"'{away}'")
    (programs / "kubectl").write_text(KUBECTL.format(real=real, after=here, away=away), encoding="utf-8")
    (programs / "kubectl").chmod(0o755)
    return replace(shell, programs=programs)


OVERTAKEN = {
    "nobody sees what came of it": (
        "yes | head -n 1000 >{away}",
        "whether it is in force could not be seen within 1 s: The connection to the server 127.0.0.1:9 was refused",
    ),
    "released": (
        '{kubectl} patch circuitbreaker payments --type=merge -p \'{{"spec":{{"override":null}}}}\'',
        "its override was taken away meanwhile",
    ),
    "held otherwise": (
        '{kubectl} patch circuitbreaker payments --type=merge -p \'{{"spec":{{"override":{{"reason":"mine"}}}}}}\'',
        "its override is Open (mine) meanwhile, set by kubectl-patch",
    ),
    "deleted": ("{kubectl} delete circuitbreaker payments", "it was deleted since"),
}


def test_what_was_written_is_said(operated: World, shell: Shell, tmp_path: Path) -> None:
    """A moment without the API server is waited for; who is overtaken does not say that it is in force."""
    operated.create("payments")
    operated.until_ready("payments")
    trip = ("trip", "payments", "--reason", "x", "-y")
    shaky = after_the_write(shell, tmp_path, "printf 'x\\nx\\n' >{away}")
    assert "and in force" in shaky.run(*trip).err
    assert (tmp_path / "away").read_text() == ""
    for after, said in OVERTAKEN.values():
        other = after_the_write(shell, tmp_path, after)
        done = other.run(*trip, "--wait", "1", code=5)
        assert f"{operated.namespace}/payments: it was written, but {said}" in done.err


def test_it_refuses_what_would_have_no_effect(world: World, shell: Shell) -> None:
    """Redis away, a spec that cannot be, nobody who serves it; then --force writes and says that it did not wait."""
    world.create("payments")
    trip = ("trip", "payments", "--reason", "maintenance", "-y")
    assert "no operator" in shell.run(*trip, code=4).err
    for reason, status, words in (
        ("StoreUnavailable", "Unknown", "Redis is unreachable"),
        ("InvalidSpec", "False", "cannot put this spec in force"),
    ):
        condition = {"type": "Ready", "status": status, "reason": reason, "message": "so it is"}
        body = {
            "status": {"state": "Closed", "conditions": [condition | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]}
        }
        world.objects.patch_namespaced_custom_object_status(*API, world.namespace, PLURAL, "payments", body)
        assert words in shell.run(*trip, code=4).err
    assert "override" not in world.get("payments")["spec"]
    assert "not waited for" in shell.run(*trip, "--force").err
    assert world.get("payments")["spec"]["override"]["state"] == "Open"


def test_what_nobody_puts_in_force_is_said(world: World, shell: Shell) -> None:
    """The operator has gone after it wrote that all is well."""
    world.create("payments")
    with world.operator() as operator:
        operator.wait_ready()
        world.until_ready("payments")
    done = shell.run("trip", "payments", "--reason", "maintenance", "-y", "--wait", "0.5", code=5)
    assert "not in force within 0.5 s" in done.err


def test_who_may_not_is_told_before_the_question(world: World, shell: Shell, control_plane: ControlPlane) -> None:
    world.create("payments")
    role = f"""
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: looks}}
rules: [{{apiGroups: [circuitbreaker.dev], resources: [circuitbreakers], verbs: [get, list]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: looks}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: looks}}
subjects: [{{kind: User, name: looker-{world.namespace}}}]
"""
    control_plane.apply(role, namespace=world.namespace)
    credentials = control_plane.add_user(f"looker-{world.namespace}")
    looker = Shell(credentials, shell.programs, shell.namespace)
    world.until(lambda: "payments" in looker.run("list").out, "the Role to hold")
    refused = looker.run("trip", "payments", "--reason", "x", "-y", "--force", code=1)
    assert "forbidden" in refused.err.lower()
    assert "every call is refused" not in refused.err


@pytest.mark.parametrize("length", ["soon", "0s", "-5m"])
def test_a_length_that_cannot_be(world: World, shell: Shell, length: str) -> None:
    assert "--for" in shell.run("trip", "payments", "--reason", "x", f"--for={length}", "-y", code=2).err


def test_the_api_server_says_what_is_wrong(operated: World, shell: Shell) -> None:
    operated.create("payments", mode="Observe")
    operated.until_ready("payments")
    assert "mode Observe never does" in shell.run("trip", "payments", "--reason", "x", "-y", code=1).err
    assert "must say why" in shell.run("hold-closed", "payments", "--reason", " ", "-y", code=1).err
