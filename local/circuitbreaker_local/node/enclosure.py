"""Namespaces that end with us: network, mounts, processes and IPC of a node, seen by nobody outside.

Three processes: the one that was started waits outside and clears away; the first one inside (process 1 of its
namespace) takes notice of orphans that end; its child does the work. When process 1 ends, by whatever, the kernel ends
every process inside, and with the last of them the network and the mounts go. Process 1 ends with the process outside
(PR_SET_PDEATHSIG). So not even SIGKILL leaves more than empty cgroups and a folder, which a `janitor` removes.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from circuitbreaker_local.errors import LocalError

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x0002_0000, 0x0800_0000, 0x2000_0000, 0x4000_0000  # sched.h
OF_ITS_CHILDREN, ITS_OWN = CLONE_NEWPID, CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC
PR_SET_PDEATHSIG = 1  # linux/prctl.h
ENDING = (signal.SIGTERM, signal.SIGHUP)

_libc = ctypes.CDLL(None, use_errno=True)


def must_be_allowed() -> None:
    """Raises LocalError where no such namespaces may be made: a child of ours that ends at once tries it.

    To be called by a process with one thread.
    """
    child = os.fork()
    if child == 0:
        made = _libc.unshare(OF_ITS_CHILDREN | ITS_OWN) == 0
        os._exit(0 if made else ctypes.get_errno())
    if refused := _status(child):
        raise _not_allowed(refused)


def enclosed(work: Callable[[], int]) -> int:
    """Calls `work` inside; its return value, or 128 and the number of the signal that ended it.

    To be called by a process with one thread. Ctrl-C reaches `work` from the terminal; SIGTERM and SIGHUP are
    handed on.
    """
    _unshare(OF_ITS_CHILDREN)
    born, outside_is_ready = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(outside_is_ready)
        _in_a_child(lambda: _first_process(born, work))
    os.close(born)
    _hand_on(first)
    os.write(outside_is_ready, b".")
    os.close(outside_is_ready)
    return _status(first)


def _first_process(born: int, work: Callable[[], int]) -> int:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if not os.read(born, 1):  # whoever started us ended before the line above
        return 1
    os.close(born)
    _unshare(ITS_OWN)
    worker = os.fork()
    if worker == 0:
        _in_a_child(work)
    _hand_on(worker)
    return _status(worker)


def _in_a_child(work: Callable[[], int]) -> None:
    status = 1
    try:
        for number in (signal.SIGINT, *ENDING):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        status = work()
    except LocalError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        status = 130
    except BaseException:  # noqa: BLE001 - a child must never return into what its parent was doing
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _hand_on(child: int) -> None:
    def hand_on(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):  # it has ended, and we are clearing away
            os.kill(child, number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to everybody
    for number in ENDING:
        signal.signal(number, hand_on)


def _status(child: int) -> int:
    """Of `child`, when it has ended; others that end meanwhile are taken notice of."""
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        raise _not_allowed(ctypes.get_errno())


def _not_allowed(number: int) -> LocalError:
    why = os.strerror(number)
    return LocalError(f"this machine lets us make no namespaces ({why}): a node takes root, and no sandbox around it")
