"""`python -m circuitbreaker_local doctor | binaries | up`."""

import argparse
import sys
import threading
from contextlib import ExitStack

from circuitbreaker_local import interrupts
from circuitbreaker_local.binaries import control_plane_binaries
from circuitbreaker_local.cache import cache_folder
from circuitbreaker_local.chromium_binary import find_chromium
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.node.programs import node_binaries
from circuitbreaker_local.progress import Report
from circuitbreaker_local.prometheus_binary import find_prometheus, find_promtool
from circuitbreaker_local.redis_server import RedisServer, find_redis_server


def binaries(report: Report, *, node: bool) -> None:
    """Find or make everything that `up` and the tests need."""
    find_redis_server(report)  # first: whoever cannot have one should not wait for a build before
    for find in (find_chromium, find_prometheus, find_promtool):
        try:
            find(report)
        except LocalError as error:  # a few tests need it, and they fail
            report.say(f"going on without: {error}")
    if node:
        node_binaries(report)
    else:
        control_plane_binaries(report)


def doctor(report: Report) -> None:
    """Say what is used, and start all of it once."""
    print(f"cache          {cache_folder()}")
    server = find_redis_server(report)
    print(f"{server.name:<14} {server}", flush=True)
    programs = control_plane_binaries(report)
    for program in (programs.kube_apiserver, programs.etcd, programs.kubectl):
        print(f"{program.name:<14} {program}")
    with ControlPlane(programs) as plane, RedisServer(server) as redis:
        version = plane.kubectl("version", "--output=yaml").partition("serverVersion:")[2]
        git_version = version.partition("gitVersion:")[2].split()[0]
        print(f"Kubernetes {git_version} and Redis on port {redis.port} started and answered: all is well")


def up(report: Report) -> None:
    """Start a control plane and Redis, and keep them until Ctrl-C."""
    server = find_redis_server(report)
    programs = control_plane_binaries(report)
    with ExitStack() as running:
        plane = running.enter_context(ControlPlane(programs))
        redis = running.enter_context(RedisServer(server))
        print(f"export KUBECONFIG={plane.kubeconfig}")
        print(f"export REDIS_URL={redis.url}")
        print(f"export PATH={programs.kubectl.parent}:$PATH", flush=True)
        report.say("running; Ctrl-C ends both and removes what they kept")
        never = threading.Event()
        parts = (plane.etcd.process, plane.api_server.process, redis.process)
        while all(part.alive for part in parts):
            never.wait(1.0)
        raise LocalError("; ".join(part.obituary() for part in parts if not part.alive))


def main() -> int:
    """The exit status: 1 with one message when something is missing, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m circuitbreaker_local", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (doctor, binaries, up):
        commands.add_parser(command.__name__, help=command.__doc__).set_defaults(command=command)
    commands.choices["binaries"].add_argument(
        "--node", action="store_true", help="and the programs of a node, which `make e2e` runs on"
    )
    asked = vars(parser.parse_args())
    chosen = asked.pop("command")
    interrupts.listen()
    report = Report()
    try:
        chosen(report, **asked)
    except LocalError as error:
        report.say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
