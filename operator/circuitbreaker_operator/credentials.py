"""Clients of the API server with the credentials of this moment: a pod's service account, else a kubeconfig.

Keys and certificates that stand in a kubeconfig become files, since TLS reads nothing else. kubernetes.aio keeps these
for the whole process, whichever thread asks: so one client is made at a time, in one loop, and leaves no file behind.
"""

import asyncio
import os
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import kube_config

from circuitbreaker_operator.errors import SettingsError

IN_FLIGHT: Final = 16  # requests of one client


class Credentials:
    """Those of the pod we run in, else of KUBECONFIG or ~/.kube/config. It belongs to the event loop it is made in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._alone = asyncio.Lock()
        self._address: str | None = None

    async def client(self) -> ApiClient:
        """A client with the credentials as they are now. Any thread's loop may wait for it.

        Raises SettingsError when there are none, when they cannot be used, and when they lead to another API server
        than those before.
        """
        if asyncio.get_running_loop() is self._loop:
            return await self._made()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._made(), self._loop))

    async def _made(self) -> ApiClient:
        async with self._alone:
            try:
                return self._of(await _configuration())
            finally:
                forget_files()

    def _of(self, configuration: Configuration) -> ApiClient:
        address = str(configuration.host)
        if self._address not in (None, address):
            raise SettingsError(f"KUBECONFIG leads to {address} now; the operator has to be started again for that")
        try:
            client = ApiClient(configuration)
        except OSError as error:  # an error of TLS is one
            text = f"no way to the API server: its certificates in the kubeconfig cannot be used: {error}"
            raise SettingsError(text) from error
        self._address = address
        return client


async def _configuration() -> Configuration:
    """Raises SettingsError when there is none."""
    configuration = Configuration()
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST") and not os.environ.get("KUBECONFIG"):
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            files = os.environ.get("KUBECONFIG") or config.KUBE_CONFIG_DEFAULT_LOCATION
            await _load_files(files, configuration)
    except (config.ConfigException, OSError, ValueError) as error:
        text = f"no way to the API server: {error}; run in a pod with a service account, or set KUBECONFIG"
        raise SettingsError(text) from error
    configuration.connection_pool_maxsize = IN_FLIGHT
    configuration.retries = None
    configuration.proxy = configuration.proxy or _proxy_to(str(configuration.host))
    # Left to itself the session asks for a proxy, and reads ~/.netrc, with each request, in another thread.
    configuration.client_session_kwargs = {"trust_env": False}
    return configuration


async def _load_files(files: str, configuration: Configuration) -> None:
    if os.environ.get("KUBECONFIG") and not _any_exists(files):
        raise SettingsError(f"KUBECONFIG: no file at {files}")
    try:
        await config.load_kube_config(config_file=files, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError):
        raise
    except Exception as error:  # of its YAML library, which we do not import, or of a shape that it did not expect
        mark = getattr(error, "problem_mark", None)
        place = type(error).__name__ + (f" in line {mark.line + 1}" if mark else "")
        raise SettingsError(f"KUBECONFIG: {files} is no kubeconfig, or is damaged ({place})") from error


def _any_exists(files: str) -> bool:
    return any(Path(each).expanduser().exists() for each in files.split(os.pathsep) if each)


def _proxy_to(host: str) -> str | None:
    """The proxy that the environment (HTTPS_PROXY, NO_PROXY) names for that address; none for loopback, as in Go."""
    url = urlsplit(host)
    return None if _is_loopback(url.hostname or "") or proxy_bypass(url.netloc) else getproxies().get(url.scheme)


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:  # another name
        return False


def forget_files() -> None:
    """Removes the files that kubernetes.aio made of a kubeconfig; its own removal waits for an exit we never take."""
    with suppress(RuntimeError):  # a process that leaves at once, while another thread makes one
        kube_config._cleanup_temp_files()  # type: ignore[no-untyped-call]  # noqa: SLF001
