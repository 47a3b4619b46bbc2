"""The C library has one heap for all threads, unless somebody chose otherwise."""

import os
import platform
import subprocess
import sys

import pytest

HEAPS = """
import ctypes, sys, threading
from circuitbreaker_operator.memory import keep_no_holes
if sys.argv[1] == "keep":
    keep_no_holes()
together = threading.Barrier(4)
def fill():
    together.wait()
    kept = [bytes(2_000) for _ in range(2_000)]
    together.wait()
threads = [threading.Thread(target=fill) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join()
library = ctypes.CDLL(None)
library.fdopen.restype = ctypes.c_void_p
library.malloc_info(0, ctypes.c_void_p(library.fdopen(1, b"w")))
library.fflush(None)
"""


def heaps(what: str, **environment: str) -> int:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    command = [sys.executable, "-c", HEAPS, what]
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=True)
    return done.stdout.count("<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_one_heap_for_all_threads() -> None:
    assert heaps("leave") > 1
    assert heaps("keep") == 1
    assert heaps("keep", MALLOC_ARENA_MAX="8") > 1, "somebody chose"
