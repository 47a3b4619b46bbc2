"""Becomes the program of its arguments, after making sure that it does not outlive the process that started it.

    _launcher.py PARENT STARTED LIFELINE PROGRAM ARGUMENT...

Run by `processes.Process` as `python -I -S _launcher.py`; it imports nothing but the standard library. `STARTED` is the
writing end of a pipe: it closes when the program has taken our place, or receives why it could not. Two ways:

- `LIFELINE` is `-`: Linux. The kernel sends SIGKILL when the parent ends (PR_SET_PDEATHSIG, kept across exec). Set
  here and not in a `preexec_fn`, which may deadlock a parent that has threads. A parent that ended before the call is
  noticed by `getppid`.
- `LIFELINE` is the number of a file descriptor, the reading end of a pipe whose other end the parent holds: anywhere
  else. A watcher is forked off that waits for whichever comes first, the end of the parent (its pipe closes) or the
  end of the program (a second pipe, which only the program holds, closes), and in the first case kills the program. It
  asks no process table, so it cannot hit a process that was given the same id later.
"""

import os
import select
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent: int) -> None:
    import ctypes  # noqa: PLC0415 - not built on every system, and only needed on this one

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the parent ended before its child began")


def watch_parent(lifeline: int, started: int) -> None:
    program = os.getpid()
    ended, held = os.pipe()
    os.set_inheritable(held, True)
    if os.fork() != 0:
        os.close(ended)
        os.close(lifeline)
        return
    os.setsid()  # out of the program's group: stopping that must not end the watch over it
    os.close(held)
    os.close(started)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    readable, _, _ = select.select([lifeline, ended], [], [])
    if ended not in readable:
        os.killpg(program, signal.SIGKILL)
    os._exit(0)


def main() -> None:
    parent, started, lifeline, *command = sys.argv[1:]
    os.set_inheritable(int(started), False)
    try:
        if lifeline == "-":
            die_with_parent(int(parent))
        else:
            watch_parent(int(lifeline), int(started))
        os.execv(command[0], command)  # noqa: S606 - there is no shell to want
    except OSError as error:
        os.write(int(started), str(error).encode())
        sys.exit(127)


if __name__ == "__main__":
    main()
