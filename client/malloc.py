"""The process's memory allocator, for programs that move large tensors."""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt(3), from malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_large_buffers() -> bool:
    """Have glibc keep freed buffers of this process instead of returning them to the system.

    Every large gRPC message otherwise costs page faults for fresh memory: about half of the time
    for 1 MB over gRPC, next to nothing over shared memory. It does what the environment variables
    ``MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=… MALLOC_TOP_PAD_=268435456`` do, which only count
    when they are set before the process starts. As it concerns the whole process, it is for
    programs (the command line, benchmarks) and not done by the library on its own.

    Returns
    -------
    bool
        Whether it took effect; False without glibc.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 256 << 20))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
