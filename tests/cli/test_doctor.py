"""doctor, on a real API server, a real Redis, a real operator: what is well, what is broken, what may not be read."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from circuitbreaker_cli.checks import served
from circuitbreaker_cli.checks.findings import Verdict
from circuitbreaker_cli.commands import doctor
from circuitbreaker_cli.remote.kubectl import Kubectl
from circuitbreaker_contract import library, protocol
from circuitbreaker_contract.policy import Policy
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.kubeconfig import write_kubeconfig
from circuitbreaker_local.processes import free_port
from tests.cli.shell import Shell
from tests.cluster.world import World

ACL = Path(__file__).parents[2] / "contract" / "acl" / "users.acl"


def verdicts(told: dict[str, Any]) -> dict[str, str]:
    """The worst of each check."""
    order = ["problem", "warning", "ok", "notChecked"]
    found: dict[str, str] = {}
    for each in told["findings"]:
        found[each["check"]] = min(found.get(each["check"], "notChecked"), each["verdict"], key=order.index)
    return found


def test_an_installation_that_is_well(world: World, shell: Shell) -> None:
    """An operator with a Lease, outside of the cluster: no Deployment shows it, and the Lease does."""
    world.create("payments")
    where = {"LEADER_ELECTION": "true", "LEASE_NAMESPACE": world.namespace}
    with world.operator(**where) as operator:
        operator.wait_ready()
        world.until_ready("payments")
        flags = ["--redis-url", world.server.url, "--operator-namespace", world.namespace]
        told = shell.run("doctor", *flags, "-o", "json").json
        assert verdicts(told) == {
            "API server": "ok",
            "resource": "ok",
            "Deployment": "warning",
            "pods": "notChecked",
            "Lease": "ok",
            "rights": "ok",
            "Redis": "ok",
            "functions": "ok",
            "orphans": "ok",
            "clocks": "ok",
            "breakers": "ok",
        }
        assert yaml.safe_load(shell.run("doctor", *flags, "-o", "yaml").out)["summary"] == told["summary"]
        page = shell.run("doctor", "-A", *flags).out
        assert "leads, renewed" in page
        assert page.splitlines()[-1] == "0 problems, 1 warning, 9 ok, 1 not checked"


def test_what_is_broken_is_found(world: World, shell: Shell) -> None:
    """The operator has gone; one breaker stays Open, one is gone from Redis, one was edited, one has no resource."""
    for name in ("open", "gone", "edited"):
        world.create(name, recoveryTimeout="100ms", failureThreshold=1)
    with world.operator() as operator:
        operator.wait_ready()
        world.until_ready("open", "gone", "edited")
    world.fleet("open").open()
    opened = {"state": "Open", "openUntil": "2026-01-01T00:00:00.000Z", "stateGeneration": 2}
    patch = world.objects.patch_namespaced_custom_object_status
    patch("circuitbreaker.dev", "v1alpha1", world.namespace, "circuitbreakers", "open", {"status": opened})
    world.redis.delete(*world.keys_of("gone"))
    world.patch("edited", {"spec": {"failureThreshold": 7}})
    fleet = world.fleet("orphan")
    fleet.call(protocol.configure(fleet.key, owner="somebody", uid="u", generation=1, policy=Policy(1, 100, 1, 1, 100)))
    told = shell.run("doctor", "--redis-url", world.server.url, "-o", "json", code=1).json
    said = {each["text"]: each for each in told["findings"]}
    mine = world.namespace
    assert said["not in Redis, so clients decide alone"]["objects"] == [f"{mine}/gone"]
    assert said["Open, and past the time for probes"]["objects"][0].startswith(f"{mine}/open (")
    assert said["its last edit is not in force"]["objects"] == [f"{mine}/edited (generation 2, status of 1)"]
    assert said["breakers in Redis that have no resource"]["objects"] == [f"{mine}/orphan (owner somebody)"]
    assert all(said[text]["remedy"] for text in said if said[text]["verdict"] in {"problem", "warning"})
    assert shell.run("doctor", code=1).out.splitlines()[-1].startswith("1 problem, 2 warnings")


def test_with_few_rights_the_rest_is_checked(world: World, shell: Shell, control_plane: ControlPlane) -> None:
    """Who may list breakers in one namespace hears of them, and of what may not be read; that alone is no failure."""
    control_plane.apply(
        """
apiVersion: v1
kind: ServiceAccount
metadata: {name: looks}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: looks}
rules: [{apiGroups: [circuitbreaker.dev], resources: [circuitbreakers], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: looks}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: looks}
subjects: [{kind: ServiceAccount, name: looks}]
""",
        namespace=world.namespace,
    )
    credentials = control_plane.service_account_kubeconfig(world.namespace, "looks")
    looker = Shell(credentials, shell.programs, shell.namespace)
    world.until(lambda: "no breakers" in looker.run("list").err, "the Role to hold")
    world.redis.function_load(library.source())
    (line,) = (each for each in ACL.read_text(encoding="utf-8").splitlines() if "circuitbreaker-viewer" in each)
    world.redis.execute_command("ACL", "SETUSER", *line.split()[1:])
    viewer = world.server.url.replace("://", "://circuitbreaker-viewer:VIEWER_PASSWORD@")
    told = looker.run("doctor", "--redis-url", viewer, "-o", "json").json
    found = verdicts(told)
    assert {check for check in found if found[check] == "notChecked"} == {"Deployment", "pods", "Lease"}
    assert {check for check in found if found[check] != "ok"} == {"Deployment", "pods", "Lease", "rights"}
    (rights,) = (each["text"] for each in told["findings"] if each["check"] == "rights")
    assert rights.startswith(f"you may not watch, patch circuitbreakers in {world.namespace}: watch, trip, hold-closed")
    assert "forbidden" in next(each["text"] for each in told["findings"] if each["check"] == "pods")


def test_without_an_api_server_or_redis(shell: Shell, tmp_path: Path, control_plane: ControlPlane) -> None:
    nobody = Path(tmp_path, "nobody.kubeconfig")
    server = replace(control_plane.api_server.reach(), url=f"https://127.0.0.1:{free_port()}")
    write_kubeconfig(nobody, server, user="x", token="y")
    lost = Shell(nobody, shell.programs, shell.namespace)
    done = lost.run("doctor", "--redis-url", f"redis://127.0.0.1:{free_port()}/0", "-o", "json", code=1)
    found = verdicts(done.json)
    assert {check for check in found if found[check] == "problem"} == {"API server", "Redis"}
    assert set(found.values()) == {"problem", "notChecked"}
    assert verdicts(lost.run("doctor", "-o", "json", code=1).json)["Redis"] == "notChecked"
    bare = Shell(nobody, tmp_path, shell.namespace, {"PATH": str(tmp_path)})
    assert "there is no kubectl on the PATH" in bare.run("doctor", code=1).out


def test_a_resource_that_is_not_installed(control_plane: ControlPlane, shell: Shell, monkeypatch: Any) -> None:
    """The API server's own words about a group that it does not have."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(shell.programs), os.environ["PATH"]]))
    monkeypatch.setattr(served, "GROUP_PATH", "/apis/nobody.example")
    api = Kubectl(kubeconfig=str(control_plane.kubeconfig))
    (finding,) = (each for each in doctor.examine(api, "default", "") if each.check == served.CHECK)
    assert finding.verdict is Verdict.PROBLEM
    assert "kubectl apply" in finding.remedy
