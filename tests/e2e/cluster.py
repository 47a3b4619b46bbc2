"""What a person at a terminal has: kubectl, and a way to call Services and pods."""

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from circuitbreaker_local.waiting import wait_until
from tests.cluster.test_manifests import MONITORING

ROOT = Path(__file__).parents[2]
SYSTEM, SHOP = "circuitbreaker-system", "shop"
OPERATOR, BREAKER = "circuitbreaker-operator", "upstream"
SAMPLE = ROOT / "examples" / "kubernetes"
# What a cluster's storage class would make for the claim of components/redis.
VOLUME = """
apiVersion: v1
kind: PersistentVolume
metadata:
  name: {name}
spec:
  capacity: {{storage: 2Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  local: {{path: {path}}}
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions:
            - {{key: kubernetes.io/hostname, operator: In, values: [node1]}}
"""


class Answer(NamedTuple):
    """Of a service; 0 when there was none."""

    status: int
    body: str
    retry_after: str | None


class Cluster:
    """Of one node, by kubectl."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def prepare(self) -> None:
        """What a cluster has before anybody installs us: the kinds of the Prometheus operator."""
        for kind in ("ServiceMonitor", "PrometheusRule"):
            plural = f"{kind.lower()}s"
            self.apply(MONITORING.format(kind=kind, plural=plural))
            served = ("wait", "--for=condition=Established", f"crd/{plural}.monitoring.coreos.com")
            self.until(lambda served=served: bool(self.kubectl(*served, check=False)), f"{plural} to be served")

    # -- kubectl

    def kubectl(self, *words: str, text: str = "", timeout_seconds: float = 180.0, check: bool = True) -> str:
        done = subprocess.run(
            ["kubectl", *words], input=text, capture_output=True, text=True, timeout=timeout_seconds, check=False
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr.strip()}"
        return done.stdout

    def apply(self, text: str, *words: str) -> None:
        self.kubectl("apply", "--server-side", *words, "-f", "-", text=text)

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def names(self, *words: str) -> list[str]:
        return self.kubectl("get", *words, "--output=name").split()

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        wait_until(condition, timeout_seconds=seconds, what=what)

    def rolled_out(self, *workloads: str, namespace: str) -> None:
        for workload in workloads:
            self.kubectl("rollout", "status", workload, "--namespace", namespace, "--timeout=150s")

    def volume(self, name: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.apply(VOLUME.format(name=name, path=folder))

    def look(self) -> str:
        """Everything that tells why something is not as it should be."""
        pieces = [
            self.kubectl("get", "pods,circuitbreakers,persistentvolumeclaims", "-A", "-o", "wide", check=False),
            self.kubectl("get", "events", "-A", "--sort-by=.lastTimestamp", check=False)[-6000:],
        ]
        for app, namespace in ((OPERATOR, SYSTEM), ("circuitbreaker-redis", SYSTEM), ("shop", SHOP)):
            selector = f"--selector=app.kubernetes.io/name={app}"
            words = ["logs", selector, "--namespace", namespace, "--all-containers", "--prefix", "--tail=15"]
            pieces.append(self.kubectl(*words, check=False))
        return "\n".join(pieces)

    # -- the sample application

    def pods(self, app: str, namespace: str) -> list[dict[str, Any]]:
        """Those that are not being deleted."""
        found = self.get("pods", "--namespace", namespace, f"--selector=app.kubernetes.io/name={app}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def call(self, url: str, method: str = "POST") -> Answer:
        request = urllib.request.Request(url, method=method)
        try:
            with self._opener.open(request, timeout=5) as answer:
                return Answer(answer.status, answer.read().decode(), None)
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode(), error.headers.get("Retry-After"))
        except OSError as error:
            return Answer(0, str(error), None)

    def ask(self) -> Answer:
        """One call to the application, by its Service: to any of its pods."""
        return self.call(f"http://shop.{SHOP}.svc.cluster.local:8000/ask")

    def ask_each(self) -> list[Answer]:
        """One call to each pod of the application."""
        addresses = [pod["status"]["podIP"] for pod in self.pods("shop", SHOP)]
        return [self.call(f"http://{address}:8000/ask") for address in addresses]

    def mood(self, mood: str) -> None:
        """By the backend's Service: a ready pod is behind it once kube-proxy, each second, has written that."""
        url = f"http://upstream.{SHOP}.svc.cluster.local:9000/mood/{mood}"
        self.until(lambda: self.call(url).status == 204, f"the backend to be {mood}", 30)

    # -- the breaker

    def breaker(self) -> dict[str, Any]:
        return self.get("circuitbreaker", BREAKER, "--namespace", SHOP)

    def state(self) -> str:
        """As `kubectl get` prints it, in its column."""
        header, row = self.kubectl("get", "circuitbreaker", BREAKER, "--namespace", SHOP).splitlines()
        return row[header.index("STATE") :].split()[0]

    def edit(self, **spec: str) -> None:
        """As a person does it; back when it is in force."""
        patch = json.dumps({"spec": spec})
        self.kubectl("patch", "circuitbreaker", BREAKER, "--namespace", SHOP, "--type=merge", f"--patch={patch}")
        self.until(lambda: spec.items() <= self.breaker()["status"]["policy"].items(), "the edit to be in force")

    def events(self) -> list[str]:
        words = [
            "--namespace",
            SHOP,
            f"--field-selector=involvedObject.kind=CircuitBreaker,involvedObject.name={BREAKER}",
        ]
        return sorted(each["reason"] for each in self.get("events", *words)["items"])

    def opens(self) -> None:
        """The backend breaks, the breaker opens, and kubectl shows it."""
        generation = self.breaker()["status"]["stateGeneration"]
        self.mood("failing")

        def opened() -> bool:
            self.ask()
            status = self.breaker()["status"]
            return bool(status["stateGeneration"] > generation and status["state"] == "Open")

        self.until(opened, "the status to say Open")

    def opens_everywhere(self) -> None:
        """Every pod of the application refuses, and says when to come back."""

        def refused() -> bool:
            answers = self.ask_each()
            return len(answers) == 3 and all(each.status == 503 and int(each.retry_after or 0) > 0 for each in answers)

        # A pod hears of it within milliseconds; the condition also outlasts a moment of HalfOpen.
        self.until(refused, "each pod to answer 503 with Retry-After", 30)

    def recovers(self) -> None:
        """The backend is mended, traffic probes it, and the breaker closes."""
        self.mood("ok")

        def closed() -> bool:
            self.ask()
            return self.state() == "Closed"

        self.until(closed, "the breaker to close")
        self.until(lambda: {each.status for each in self.ask_each()} == {200}, "every pod to call again")
