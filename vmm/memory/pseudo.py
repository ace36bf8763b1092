"""Pseudo-physical memory: what a Xen PV guest calls physical, spread over machine frames.

The guest's page tables hold machine frame numbers, its own bookkeeping pseudo-physical ones. The
two differ on purpose, by a permutation, so that a guest which confuses them is caught at once.
"""

import itertools
from array import array
from math import gcd
from typing import Final

from hwmodel.mem.ram import PAGE
from vmm.memory.guest import GuestMemory

_GOLDEN: Final = 0.6180339887  # of the frames: neighbours come to lie far apart


def permutation(frames: int, *, identity: bool = False) -> "array[int]":
    """Return the machine frame of each pseudo-physical one; frame 0 is nobody's first."""
    if identity:
        return array("Q", range(frames))
    step = max(1, int(frames * _GOLDEN))
    while gcd(step, frames) != 1:
        step += 1
    return array("Q", ((pfn + 1) * step % frames for pfn in range(frames)))


class PseudoPhysical(GuestMemory):
    """`frames` frames of guest memory, and `more` behind them that are the hypervisor's.

    Addresses are pseudo-physical, as `p2m` maps them. `size` is that of all machine memory, which
    is what a snapshot holds.
    """

    def __init__(self, frames: int, more: int, *, identity: bool = False) -> None:
        """Allocate it, all zero."""
        super().__init__(((0, (frames + more) * PAGE),))
        self.frames: Final = frames
        self.p2m: Final = permutation(frames, identity=identity)

    def hpa(self, gpa: int, size: int = 1) -> int | None:
        """Return where [gpa, gpa+size) lies in machine memory, None if not in one piece."""
        first, last = gpa // PAGE, (gpa + size - 1) // PAGE
        if gpa < 0 or last >= self.frames:
            return None
        at = self.p2m[first]
        if any(self.p2m[first + n] != at + n for n in range(1, last - first + 1)):
            return None
        return at * PAGE + gpa % PAGE

    def read(self, gpa: int, size: int) -> bytes:
        """Return `size` bytes."""
        parts = (super(PseudoPhysical, self).read(at, n) for at, n in _pieces(gpa, size))
        return b"".join(parts)

    def write(self, gpa: int, data: bytes | memoryview) -> None:
        """Write bytes, as a device's DMA would: translated code there is dropped."""
        done = 0
        for at, size in _pieces(gpa, len(data)):
            super().write(at, data[done : done + size])
            done += size


def _pieces(gpa: int, size: int) -> list[tuple[int, int]]:
    """Cut a range at page boundaries; an empty one stays."""
    cuts = [gpa, *range((gpa // PAGE + 1) * PAGE, gpa + size, PAGE), gpa + size]
    return [(a, b - a) for a, b in itertools.pairwise(cuts)]
