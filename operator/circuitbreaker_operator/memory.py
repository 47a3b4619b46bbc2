"""How the C library keeps memory that was given back: one heap, and none of the large blocks.

glibc gives each thread a heap of its own and, after the first large block, keeps large ones too. What Python held for a
moment, as when the watch lists everything anew, would stay with the process for good, once for each of its two threads.
"""

import ctypes
import os
import sys
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # of malloc.h
_M_ARENA_MAX: Final = -8
_LARGE_BYTES: Final = 128 * 1024


def keep_no_holes() -> None:
    """For this process, before it has threads. Leaves what somebody set by MALLOC_... or GLIBC_TUNABLES."""
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # of glibc
        library.mallopt(_M_ARENA_MAX, 1)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
