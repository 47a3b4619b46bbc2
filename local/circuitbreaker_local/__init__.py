"""What runs on this machine for the demo and the tests: a control plane, Redis, their processes."""

from circuitbreaker_local.binaries import ControlPlaneBinaries, control_plane_binaries
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.processes import Process
from circuitbreaker_local.progress import Report
from circuitbreaker_local.redis_server import RedisServer, find_redis_server

__all__ = [
    "ControlPlane",
    "ControlPlaneBinaries",
    "LocalError",
    "Process",
    "RedisServer",
    "Report",
    "control_plane_binaries",
    "find_redis_server",
]
