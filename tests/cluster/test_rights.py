"""The operator with exactly the rights that manifests/ ships: none is missing, and none is never used.

The API server's own audit log is the witness: it has every request of the operator's service account with its answer.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from circuitbreaker_local.binaries import ControlPlaneBinaries
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.redis_server import RedisServer
from tests.cluster.audit import Audit, Request, Right
from tests.cluster.conftest import install_crd
from tests.cluster.world import API, PLURAL, OperatorProcess, World

MANIFESTS = Path(__file__).parents[2] / "manifests"
SYSTEM, ACCOUNT = "circuitbreaker-system", "circuitbreaker-operator"
USER = f"system:serviceaccount:{SYSTEM}:{ACCOUNT}"
ROLE = MANIFESTS / "components" / "namespaced" / "role.yaml"
CLUSTER_RULES = 8  # what the ClusterRole grants; a rule more is one to explain
LEASES = "leases"
ELECTION = {"LEADER_ELECTION": "true", "LEASE_NAMESPACE": SYSTEM}  # as in a pod of that namespace
REFUSED = {401, 403}


LEASE_RIGHTS = {
    Right("coordination.k8s.io", LEASES, "get", ACCOUNT),
    Right("coordination.k8s.io", LEASES, "update", ACCOUNT),
    Right("coordination.k8s.io", LEASES, "create"),
}


def rights_of(role: Mapping[str, Any]) -> set[Right]:
    return {
        Right(group, resource, verb, name)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def of_leases(text: str) -> set[Right]:
    """What the rendered manifests grant in the operator's own namespace."""
    roles = [each for each in yaml.safe_load_all(text) if each["kind"] == "Role"]
    assert {each["metadata"]["namespace"] for each in roles} == {SYSTEM}
    return set().union(*map(rights_of, roles))


def unused(rights: set[Right], requests: list[Request]) -> set[Right]:
    made = {each.right for each in requests if each.code not in REFUSED}  # a 404 was allowed to ask
    without_names = {right._replace(name="") for right in made}
    return {right for right in rights if right not in (made if right.name else without_names)}


class AuditedWorld(World):
    """A world that knows what was asked of its API server."""

    audit: Audit


@pytest.fixture(scope="module")
def audited(
    kubernetes_binaries: ControlPlaneBinaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ControlPlane, Audit]]:
    """A control plane that writes down who asks for what."""
    audit = Audit(tmp_path_factory.mktemp("audit"), USER)
    with ControlPlane(kubernetes_binaries, api_server_arguments=audit.arguments) as plane:
        install_crd(plane)
        plane.create_namespace(SYSTEM)
        yield plane, audit


@pytest.fixture
def world(audited: tuple[ControlPlane, Audit], redis_server: RedisServer, tmp_path: Path) -> Iterator[AuditedWorld]:
    plane, audit = audited
    world = AuditedWorld(plane, redis_server, tmp_path)
    world.audit = audit
    yield world
    world.close()


def rendered(plane: ControlPlane, folder: Path, *, components: list[Path]) -> str:
    """What `kubectl kustomize` makes of the base with these components."""
    overlay = folder / "overlay"
    overlay.mkdir()
    text = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    # kustomize takes nothing but relative paths
    text |= {"resources": [os.path.relpath(MANIFESTS / "base", overlay)]}
    text |= {"components": [os.path.relpath(each, overlay) for each in components]}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    return plane.kubectl("kustomize", str(overlay))


def of_the_operator(text: str) -> list[dict[str, Any]]:
    """What grants something to the operator, or is named like it. The roles for people are held by nobody as such."""
    return [
        each
        for each in yaml.safe_load_all(text)
        if each["metadata"]["name"].startswith(ACCOUNT)
        or ACCOUNT in [subject["name"] for subject in each.get("subjects", [])]
    ]


def a_life(world: World, operator: OperatorProcess, namespace: str) -> None:
    """Everything that makes the operator ask something of the API server, but for the deletion it does not see."""
    operator.wait_ready()
    world.whole_life("payments", namespace=namespace)
    world.create("search", namespace=namespace)
    world.until_ready("search", namespace=namespace)
    where = (*API, namespace, PLURAL, "search")
    patch = world.objects.patch_namespaced_custom_object
    patch(*where, {"spec": {"override": {"state": "Open", "reason": "maintenance"}}})
    world.until(lambda: world.status("search", namespace).get("forced"), "the override")
    patch(*where, {"spec": {"override": None}})
    world.until(lambda: not world.status("search", namespace).get("forced"), "the end of the override")
    patch(*where, {"metadata": {"annotations": {"circuitbreaker.dev/reset": "1"}}})
    world.until(lambda: world.status("search", namespace).get("lastReset") == "1", "the reset")


def after_a_restart(world: World, operator: OperatorProcess, namespace: str) -> None:
    """What was deleted meanwhile is swept, what stayed is served."""
    operator.wait_ready()
    world.until(lambda: not world.keys_of("search", namespace), "the orphan to be swept")
    world.create("later", namespace=namespace)
    world.until_ready("later", namespace=namespace)


def two_lives(world: AuditedWorld, *namespaces: str, **settings: str) -> list[Request]:
    """The requests of an operator that lives, ends, and lives again; it is elected, so that its Lease is made."""
    world.plane.kubectl("delete", "lease", "--all", "--namespace", SYSTEM)
    settings |= ELECTION
    world.audit.begin()
    with world.operator(**settings) as operator:
        for namespace in namespaces:
            a_life(world, operator, namespace)
    for namespace in namespaces:
        world.delete("search", namespace)
    with world.operator(**settings) as operator:
        for namespace in namespaces:
            after_a_restart(world, operator, namespace)
    found = world.audit.requests()
    assert found, "the audit log says nothing about the operator"
    assert not [each for each in found if each.code in REFUSED]
    return found


def test_the_whole_cluster(world: AuditedWorld, tmp_path: Path) -> None:
    """manifests/base: each right is used, and no other is missed."""
    text = rendered(world.plane, tmp_path, components=[])
    world.plane.apply(text, namespace=SYSTEM)
    (role,) = [each for each in of_the_operator(text) if each["kind"] == "ClusterRole"]
    world.credentials = world.plane.service_account_kubeconfig(SYSTEM, ACCOUNT)
    try:
        found = two_lives(world, world.namespace)
    finally:
        world.plane.kubectl("delete", "clusterrolebinding,clusterrole", ACCOUNT)
    assert unused(rights_of(role) | of_leases(text), found) == set()
    assert len(rights_of(role)) == CLUSTER_RULES
    assert of_leases(text) == LEASE_RIGHTS


@pytest.mark.parametrize("number", [1, 3], ids=["one namespace", "several namespaces"])
def test_namespaces_with_roles_only(world: AuditedWorld, tmp_path: Path, number: int) -> None:
    """components/namespaced and role.yaml in each namespace: nothing is asked for outside of these."""
    namespaces = [world.namespace, *(world.new_namespace() for _ in range(number - 1))]
    stranger = world.new_namespace()
    text = rendered(world.plane, tmp_path, components=[MANIFESTS / "components" / "namespaced"])
    assert not [each for each in of_the_operator(text) if each["kind"].startswith("ClusterRole")]
    world.plane.apply(text, namespace=SYSTEM)
    for namespace in namespaces:
        world.plane.apply(ROLE, namespace=namespace)
    world.credentials = world.plane.service_account_kubeconfig(SYSTEM, ACCOUNT)
    world.create("foreign", namespace=stranger)
    found = two_lives(world, *namespaces, NAMESPACES=",".join(namespaces), OWNER="roles-only")
    role = next(each for each in yaml.safe_load_all(ROLE.read_text(encoding="utf-8")) if each["kind"] == "Role")
    for namespace in namespaces:
        assert unused(rights_of(role), [each for each in found if each.namespace == namespace]) == set()
    assert of_leases(text) == LEASE_RIGHTS
    own = [each for each in found if each.namespace == SYSTEM]
    assert unused(of_leases(text), own) == set()
    assert {each.right.resource for each in own} == {LEASES}
    assert {each.namespace for each in found if each.right.resource} == {*namespaces, SYSTEM}
    assert world.status("foreign", stranger) == {}
