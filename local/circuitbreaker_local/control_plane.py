"""A real Kubernetes API for tests and the demo: etcd and kube-apiserver as child processes, ready in about 4 seconds.

What it is not: no controller manager runs, so a deleted namespace stays "Terminating", owner references collect no
garbage, namespaces get no default service account, aggregated roles (`view`, `edit`, `admin`) stay empty, and no
scheduler or kubelet runs any pod. Give a test a namespace of
its own instead of cleaning up. RBAC is enforced, so identities are worth testing: see `add_user` and
`service_account_kubeconfig`.
"""

import csv
import io
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from circuitbreaker_local.binaries import ControlPlaneBinaries
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.folders import TemporaryFolder
from circuitbreaker_local.kubeconfig import write_kubeconfig, write_private
from circuitbreaker_local.kubectl import run
from circuitbreaker_local.servers import ApiServer, Etcd
from circuitbreaker_local.waiting import wait_until

ADMIN = "admin"
STOP_SECONDS = 10.0


class ControlPlane:
    """etcd and kube-apiserver on 127.0.0.1. Not started until `start`, or until entered as a context manager.

    `users` are names with their groups, known from the first start. The `*_arguments` are given to the servers as they
    are, last: `["--max-mutating-requests-inflight=1"]`. `address` is where the API server
    listens. With `service_accounts` pods are given theirs: that takes a controller manager beside this.
    """

    def __init__(
        self,
        binaries: ControlPlaneBinaries,
        *,
        users: Mapping[str, Sequence[str]] | None = None,
        api_server_arguments: Sequence[str] = (),
        etcd_arguments: Sequence[str] = (),
        address: str = "127.0.0.1",
        service_accounts: bool = False,
    ) -> None:
        self.binaries = binaries
        self._users = {ADMIN: ("system:masters",)} | {name: tuple(groups) for name, groups in (users or {}).items()}
        self._tokens = {name: secrets.token_urlsafe() for name in self._users}
        self._arguments = tuple(api_server_arguments), tuple(etcd_arguments)
        self._address = address
        self._service_accounts = service_accounts
        self._folder: TemporaryFolder | None = None
        self._servers: tuple[Etcd, ApiServer] | None = None

    # -- the whole

    def start(self) -> Self:
        """Back when `/readyz` is ok and the namespaces `default` and `kube-system` exist. Raises LocalError."""
        self._folder = self._folder or TemporaryFolder()
        folder = self._folder.path
        api_server_arguments, etcd_arguments = self._arguments
        etcd = Etcd("etcd", self.binaries.etcd, folder, etcd_arguments)
        api_server = ApiServer(
            self.binaries.kube_apiserver,
            folder,
            api_server_arguments,
            etcd=etcd,
            tokens=folder / "tokens.csv",
            token=self._tokens[ADMIN],
            address=self._address,
            service_accounts=self._service_accounts,
        )
        self._servers = etcd, api_server
        self._write_tokens()
        try:
            etcd.start()
            api_server.start()
            for user in self._users:
                self.kubeconfig_of(user)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End both and remove what they kept."""
        if self._servers is not None:
            etcd, api_server = self._servers
            api_server.kill()  # the folder goes in a moment: nothing is worth the seconds of a graceful end
            etcd.kill()
            self._servers = None
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- reaching it

    @property
    def url(self) -> str:
        return self.api_server.reach().url

    @property
    def kubeconfig(self) -> Path:
        """Of the administrator (group `system:masters`)."""
        return self.folder / f"{ADMIN}.kubeconfig"

    @property
    def folder(self) -> Path:
        """Holds the data and the logs, `etcd.log` and `kube-apiserver.log`; gone after `stop`."""
        if self._folder is None:
            raise LocalError("the control plane was not started")
        return self._folder.path

    @property
    def etcd(self) -> Etcd:
        return self._both[0]

    @property
    def api_server(self) -> ApiServer:
        return self._both[1]

    @property
    def _both(self) -> tuple[Etcd, ApiServer]:
        if self._servers is None:
            raise LocalError("the control plane was not started")
        return self._servers

    def kubectl(
        self, *arguments: str, text: str | None = None, kubeconfig: Path | None = None, timeout_seconds: float = 60.0
    ) -> str:
        """What kubectl prints; `text` is its standard input. Raises LocalError with what it complains about."""
        words = [*self.kubectl_flags(kubeconfig), *arguments]
        return run(self.binaries.kubectl, words, text=text, timeout_seconds=timeout_seconds)

    def kubectl_flags(self, kubeconfig: Path | None = None) -> list[str]:
        """What makes kubectl reach this control plane, and write nowhere else."""
        return [f"--kubeconfig={kubeconfig or self.kubeconfig}", f"--cache-dir={self.folder / 'kubectl-cache'}"]

    def apply(self, what: Path | str, *, namespace: str = "default") -> str:
        """Apply a file, a folder of files (a Path) or the text of a manifest (a str)."""
        if isinstance(what, Path):
            return self.kubectl("apply", "--namespace", namespace, "-f", str(what))
        return self.kubectl("apply", "--namespace", namespace, "-f", "-", text=what)

    def until_served(self, resources: str) -> None:
        """Waits until a custom resource that was just applied can be asked for, by its full name in the plural.

        Not by `kubectl wait`: it fails on a CRD that has no conditions yet, and Established comes a moment before the
        API server's own handler has heard of it.
        """
        wait_until(lambda: self._serves(resources), timeout_seconds=30, what=f"{resources} to be served")

    def _serves(self, resources: str) -> bool:
        try:
            self.kubectl("get", resources, "--all-namespaces")
        except LocalError:
            return False
        return True

    def create_namespace(self, name: str | None = None) -> str:
        """The name of a new namespace; a random one unless it is given."""
        name = name or f"test-{secrets.token_hex(4)}"
        self.kubectl("create", "namespace", name)
        return name

    # -- identities

    def kubeconfig_of(self, user: str) -> Path:
        """The kubeconfig of a known user."""
        path = self.folder / f"{user}.kubeconfig"
        write_kubeconfig(path, self.api_server.reach(), user=user, token=self._tokens[user])
        return path

    def add_user(self, name: str, groups: Sequence[str] = ()) -> Path:
        """The kubeconfig of a new user.

        The API server reads its list of tokens once: it is restarted, which takes about 3 s and ends every watch.
        Prefer `users` of the constructor, a service account, or `kubectl --as`.
        """
        self._users[name] = tuple(groups)
        self._tokens[name] = secrets.token_urlsafe()
        self._write_tokens()
        self.stop_api_server()
        self.start_api_server()
        return self.kubeconfig_of(name)

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """The kubeconfig of a service account that exists, with a token good for a day: what a pod would be."""
        token = self.kubectl("create", "token", name, "--namespace", namespace, "--duration=24h").strip()
        path = self.folder / f"{namespace}.{name}.kubeconfig"
        user = f"system:serviceaccount:{namespace}:{name}"
        write_kubeconfig(path, self.api_server.reach(), user=user, token=token, namespace=namespace)
        return path

    def _write_tokens(self) -> None:
        lines = io.StringIO()
        csv.writer(lines).writerows(
            (self._tokens[name], name, name, ",".join(groups)) for name, groups in self._users.items()
        )
        write_private(self.folder / "tokens.csv", lines.getvalue())

    # -- what may happen to it: the same port and the same data afterwards

    def start_api_server(self) -> None:
        self.api_server.start()

    def stop_api_server(self) -> None:
        """SIGTERM, as an upgrade would; SIGKILL when it is still there after 10 s."""
        self.api_server.process.stop(STOP_SECONDS)

    def kill_api_server(self) -> None:
        self.api_server.process.kill()

    def pause_api_server(self) -> None:
        """Connections stay open, new ones are accepted, nothing is answered."""
        self.api_server.process.pause()

    def resume_api_server(self) -> None:
        self.api_server.process.resume()

    def start_etcd(self) -> None:
        self.etcd.start()

    def stop_etcd(self) -> None:
        self.etcd.process.stop(STOP_SECONDS)

    def kill_etcd(self) -> None:
        self.etcd.process.kill()

    def pause_etcd(self) -> None:
        self.etcd.process.pause()

    def resume_etcd(self) -> None:
        self.etcd.process.resume()
