"""The control plane of tests and demo: it starts, serves, breaks, comes back, and is gone afterwards."""

import json
import os
import signal
import ssl
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from circuitbreaker_local import ControlPlane, ControlPlaneBinaries, LocalError
from circuitbreaker_local.inspection import children_of, is_running
from circuitbreaker_local.waiting import wait_until

# `python -m circuitbreaker_local up`. In the background of a shell SIGINT is ignored, and that is inherited.
UP = """
import signal, sys
from circuitbreaker_local.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[1:] = ["up"]
sys.exit(main())
"""
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {key: value}\n"


@pytest.fixture(scope="module")
def own(kubernetes_binaries: ControlPlaneBinaries) -> Iterator[ControlPlane]:
    """One to break, with users of its own. Every test of this module leaves it running."""
    with ControlPlane(kubernetes_binaries, users={"viewer": ["looks", "system:nobody"]}) as plane:
        yield plane


def test_ready_means_ready(control_plane: ControlPlane) -> None:
    """Once it is there, /readyz is ok, the namespaces of the system exist and custom resources are served."""
    assert control_plane.kubectl("get", "--raw", "/readyz") == "ok"
    uid = control_plane.kubectl("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
    assert len(uid) == 36
    assert "customresourcedefinitions" in control_plane.kubectl("api-resources", "-o", "name")


def test_it_starts_in_ten_seconds(kubernetes_binaries: ControlPlaneBinaries) -> None:
    """From nothing to ready in less than 10 s, and gone in less than 2."""
    began = time.monotonic()
    plane = ControlPlane(kubernetes_binaries).start()
    ready = time.monotonic()
    folder = plane.folder
    processes = plane.etcd.process, plane.api_server.process
    plane.stop()
    stopped = time.monotonic()
    assert ready - began < 10
    assert stopped - ready < 2
    assert not any(process.alive for process in processes)
    assert not folder.exists()


def test_the_kubeconfig_is_private_and_verifies(control_plane: ControlPlane) -> None:
    """Mode 0600; with its authority, and no other, a client trusts the server."""
    assert stat.S_IMODE(control_plane.kubeconfig.stat().st_mode) == 0o600
    cluster = json.loads(control_plane.kubeconfig.read_text())["clusters"][0]["cluster"]
    assert cluster["server"] == control_plane.url
    assert "insecure-skip-tls-verify" not in cluster
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        opener.open(f"{control_plane.url}/readyz")


async def test_kubernetes_aio_reads_the_kubeconfig(control_plane: ControlPlane) -> None:
    """The client of the operator works with the kubeconfig as it is."""
    from kubernetes.aio import client, config

    await config.load_kube_config(str(control_plane.kubeconfig))
    async with client.ApiClient() as api:
        namespaces = await client.CoreV1Api(api).list_namespace()
    assert {"default", "kube-system"} <= {namespace.metadata.name for namespace in namespaces.items}


def test_kopf_reads_the_kubeconfig(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kopf's own login finds server, authority and token."""
    import kopf

    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    found = kopf.login_with_kubeconfig(settings=kopf.OperatorSettings())
    assert found is not None
    assert found.server == control_plane.url
    assert found.ca_data
    assert found.token


def test_apply_text_and_file(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """A manifest is applied from a text or from a file, into a namespace of the test's own."""
    assert "created" in control_plane.apply(CONFIG_MAP, namespace=namespace)
    (tmp_path / "manifest.yaml").write_text(CONFIG_MAP)
    assert "unchanged" in control_plane.apply(tmp_path / "manifest.yaml", namespace=namespace)


def test_kubectl_complains_aloud(control_plane: ControlPlane) -> None:
    """The error of a failed kubectl has the command and what it printed."""
    with pytest.raises(LocalError, match=r"^kubectl get nonsense: .*resource type"):
        control_plane.kubectl("get", "nonsense")


def test_users_have_their_groups_and_no_more(own: ControlPlane) -> None:
    """RBAC is on: a user may do what a role of the group allows."""
    viewer = own.kubeconfig_of("viewer")
    who = json.loads(own.kubectl("auth", "whoami", "-o", "json", kubeconfig=viewer))["status"]["userInfo"]
    assert who["username"] == "viewer"
    assert {"looks", "system:nobody"} <= {*who["groups"]}
    with pytest.raises(LocalError, match="forbidden"):
        own.kubectl("get", "pods", kubeconfig=viewer)
    own.kubectl("create", "clusterrole", "looks", "--verb=get,list,watch", "--resource=pods")
    own.kubectl("create", "clusterrolebinding", "looks", "--clusterrole=looks", "--group=looks")
    wait_until(lambda: _may(own, viewer, "get", "pods"), timeout_seconds=10, what="the role to be in force")
    assert not _may(own, viewer, "create", "pods")


def test_a_service_account_is_an_identity(control_plane: ControlPlane, namespace: str) -> None:
    """A service account has a kubeconfig: what a pod of it would be."""
    control_plane.kubectl("create", "serviceaccount", "operator", "-n", namespace)
    kubeconfig = control_plane.service_account_kubeconfig(namespace, "operator")
    who = control_plane.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", kubeconfig=kubeconfig)
    assert who == f"system:serviceaccount:{namespace}:operator"


def test_a_user_is_added_while_it_runs(own: ControlPlane) -> None:
    """A user that comes later is known too, and the ones before stay known."""
    late = own.add_user("late", ["system:masters"])
    assert own.kubectl("get", "--raw", "/readyz", kubeconfig=late) == "ok"
    assert own.kubectl("get", "--raw", "/readyz") == "ok"


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_api_server_restart_keeps_port_and_data(own: ControlPlane, how: str) -> None:
    """Down, connections are refused; up again, everything is where and as it was."""
    name = own.create_namespace()
    own.apply(CONFIG_MAP, namespace=name)
    url, authority = own.url, own.api_server.reach().authority
    (own.stop_api_server if how == "stop" else own.kill_api_server)()
    with pytest.raises(LocalError, match="refused"):
        own.kubectl("get", "namespaces")
    own.start_api_server()
    assert (own.url, own.api_server.reach().authority) == (url, authority)
    assert own.kubectl("get", "configmap", "kept", "-n", name, "-o", "jsonpath={.data.key}") == "value"


def test_stop_does_not_wait_for_watchers(own: ControlPlane) -> None:
    """An open watch does not hold up an API server that is told to stop."""
    watch = subprocess.Popen(
        [own.binaries.kubectl, f"--kubeconfig={own.kubeconfig}", "get", "namespaces", "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with watch:
        assert watch.stdout is not None
        watch.stdout.readline()
        began = time.monotonic()
        own.stop_api_server()
        assert time.monotonic() - began < 5
        assert own.api_server.process.returncode == 0
        watch.terminate()
    own.start_api_server()


def test_a_paused_api_server_does_not_answer(own: ControlPlane) -> None:
    """Paused, a request runs into its time limit; resumed, it is answered."""
    own.pause_api_server()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            own.kubectl("get", "--raw", "/readyz", timeout_seconds=0.5)
    finally:
        own.resume_api_server()
    assert own.kubectl("get", "--raw", "/readyz") == "ok"


def test_etcd_comes_back(own: ControlPlane) -> None:
    """After etcd was killed and started again, the API server writes and reads what it had."""
    name = own.create_namespace()
    own.kill_etcd()
    own.start_etcd()
    wait_until(lambda: _works(own), timeout_seconds=30, what="the API server to find etcd again")
    assert own.kubectl("get", "namespace", name, "-o", "jsonpath={.status.phase}") == "Active"


def test_arguments_reach_the_servers(kubernetes_binaries: ControlPlaneBinaries) -> None:
    """A wrong argument ends the start with the server's own words, and leaves nothing."""
    with pytest.raises(LocalError, match=r"kube-apiserver ended at once:\n(.*\n)*.*unknown flag: --no-such-flag"):
        ControlPlane(kubernetes_binaries, api_server_arguments=["--no-such-flag"]).start()


@pytest.fixture
def up(kubernetes_binaries: ControlPlaneBinaries, redis_server_binary: Path) -> Iterator[subprocess.Popen[str]]:
    """`python -m circuitbreaker_local up` in a session of its own, as a terminal would run it."""
    with subprocess.Popen(
        [sys.executable, "-c", UP], text=True, start_new_session=True, stdout=subprocess.PIPE
    ) as process:
        overdue = threading.Timer(60, process.kill)  # a test that fails must not wait for its lines for ever
        overdue.start()
        yield process
        overdue.cancel()
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_up_ends_with_nothing_left(up: subprocess.Popen[str], number: signal.Signals) -> None:
    """After Ctrl-C, SIGTERM or SIGKILL of their starter no server is left; SIGKILL alone leaves a folder."""
    assert up.stdout is not None
    lines = [up.stdout.readline().strip() for _ in range(3)]
    exports = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    kubeconfig = Path(exports["KUBECONFIG"])
    with redis.Redis.from_url(exports["REDIS_URL"]) as client:
        assert client.ping()
    pids = children_of(up.pid)
    assert len(pids) == 3
    os.killpg(up.pid, number)
    assert up.wait(20) == (-9 if number == signal.SIGKILL else 130)
    wait_until(lambda: not any(map(is_running, pids)), timeout_seconds=10, what="every server to end")
    assert kubeconfig.parent.exists() == (number == signal.SIGKILL)


def _may(plane: ControlPlane, kubeconfig: Path, verb: str, resource: str) -> bool:
    try:
        return plane.kubectl("auth", "can-i", verb, resource, kubeconfig=kubeconfig).strip() == "yes"
    except LocalError:  # kubectl ends with 1 when it says no
        return False


def _works(plane: ControlPlane) -> bool:
    try:
        return plane.kubectl("get", "--raw", "/readyz", timeout_seconds=5) == "ok"
    except (LocalError, subprocess.TimeoutExpired):
        return False
