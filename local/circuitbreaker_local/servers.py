"""The two servers of a control plane: their command lines, and how each says that it is ready.

The flags are those of controller-runtime's envtest, but for the differences noted. Each server is started as often as
a test wants on the same port and data; on its first start it takes another port when somebody was quicker.
"""

import http.client
import os
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.kubeconfig import Server, authority_of
from circuitbreaker_local.processes import ADDRESS_IN_USE, Process, free_port
from circuitbreaker_local.waiting import wait_until

START_SECONDS = 60.0  # it takes 3; a busy machine of a CI may take ten times that
ATTEMPTS = 5
NAMESPACES = ("default", "kube-system")  # the API server makes them by itself, a moment after it is ready


class Startable(ABC):
    """A server that keeps its port and its data from start to start."""

    environment: Mapping[str, str] = MappingProxyType({})  # what it finds there beside what is ours

    def __init__(self, name: str, binary: Path, folder: Path, arguments: Sequence[str]) -> None:
        self.name = name
        self.binary = binary
        self.folder = folder
        self.port = 0
        self._arguments = tuple(arguments)
        self._process: Process | None = None

    @abstractmethod
    def flags(self, port: int) -> list[str]: ...

    @abstractmethod
    def ready(self, port: int) -> bool: ...

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def process(self) -> Process:
        if self._process is None:
            raise LocalError(f"{self.name} was not started")
        return self._process

    def start(self) -> None:
        """Back when it is ready; nothing happens when it runs. Raises LocalError with the end of its log."""
        if self._process is not None and self._process.alive:
            return
        for attempt in range(1, ATTEMPTS + 1):
            port = self.port or free_port()
            try:
                self._start(port)
            except LocalError as error:
                if ADDRESS_IN_USE not in str(error) or attempt == ATTEMPTS:
                    raise
            else:
                self.port = port
                return

    def _start(self, port: int) -> None:
        self.log.unlink(missing_ok=True)
        words: list[str | Path] = [self.binary, *self.flags(port), *self._arguments]
        process = self._process = Process(words, log=self.log, env={**self.environment, **os.environ})
        try:
            wait_until(
                lambda: not process.alive or self.ready(port),
                timeout_seconds=START_SECONDS,
                what=f"{self.name} to be ready",
            )
        except LocalError as error:
            process.kill()
            raise LocalError(f"{error}\n{process.tail()}") from None
        except BaseException:
            process.kill()
            raise
        if not process.alive:
            raise LocalError(f"{self.name} ended at once:\n{process.tail()}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()


class Etcd(Startable):
    """One member, no peers, no fsync: its data need not survive this machine."""

    def flags(self, port: int) -> list[str]:
        url = f"http://127.0.0.1:{port}"
        return [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--unsafe-no-fsync",
        ]

    def ready(self, port: int) -> bool:
        # Its own word first: at that port another etcd may answer, one that was quicker to take it.
        if "ready to serve client requests" not in self.log.read_text(errors="replace"):
            return False
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
        return _get(connection, "/health", {}) is not None


class ApiServer(Startable):
    """kube-apiserver with RBAC. It makes its own certificate; whoever verifies it talks to this one and no other."""

    # Its heap is small and it shares its cores with whoever uses it: fewer collections are a fifth of its work less.
    environment = MappingProxyType({"GOGC": "400"})

    def __init__(
        self,
        binary: Path,
        folder: Path,
        arguments: Sequence[str],
        *,
        etcd: Etcd,
        tokens: Path,
        token: str,
        address: str,
        service_accounts: bool,
    ) -> None:
        super().__init__("kube-apiserver", binary, folder, arguments)
        self._etcd = etcd
        self._tokens = tokens
        self._token = token
        self.address = address
        # Its plugin would wait for the default service account, which the controller manager makes.
        self._arguments = (*(() if service_accounts else ("--disable-admission-plugins=ServiceAccount",)), *arguments)

    @property
    def chain(self) -> Path:
        return self.folder / "certs" / "apiserver.crt"

    def flags(self, port: int) -> list[str]:
        # Signing tokens of service accounts takes a key pair, which takes a tool to make one. The API server has made
        # its serving key, RSA, before it reads this flag; it falls back to that key itself when it has no other.
        key = self.folder / "certs" / "apiserver.key"
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd.port}",
            f"--cert-dir={self.folder / 'certs'}",
            f"--bind-address={self.address}",
            f"--secure-port={port}",
            # Its own choice would be the address of the default route: it ends where there is none, as on a train.
            f"--advertise-address={self.address}",
            "--endpoint-reconciler-type=none",  # it may not publish a loopback address, and nobody would read it
            # Told to end, it would wait a minute for watches to end by themselves. This makes it end them.
            "--shutdown-watch-termination-grace-period=1s",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--allow-privileged=true",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self._tokens}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
        ]

    def reach(self) -> Server:
        return Server(f"https://{self.address}:{self.port}", authority_of(self.chain.read_text()))

    def ready(self, port: int) -> bool:
        return all(self._get(port, f"/api/v1/namespaces/{name}") for name in NAMESPACES) and bool(
            self._get(port, "/readyz")
        )

    def _get(self, port: int, path: str) -> bytes | None:
        with socket.socket() as probe:  # loading certificates to find nobody listening would be most of the wait
            if probe.connect_ex((self.address, port)) != 0:
                return None
        try:
            tls = ssl.create_default_context(cadata=authority_of(self.chain.read_text()))
        except (FileNotFoundError, ssl.SSLError):  # not written yet, or not to its end
            return None
        connection = http.client.HTTPSConnection(self.address, port, timeout=2.0, context=tls)
        return _get(connection, path, {"Authorization": f"Bearer {self._token}"})


def _get(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> bytes | None:
    """The body of a 200; None for any other answer, and for none."""
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if answer.status == 200 else None
