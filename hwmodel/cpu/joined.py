"""A physical CPU as one of several of a machine: an engine each, over the same memory."""

from typing import Any, Self

from hwmodel.arch.paging import InvVpid
from hwmodel.cpu.unicorn import lib


class OneOfSeveral:
    """The part of a physical CPU that knows of others (cext/peers.c)."""

    _native: Any
    dirty_log: memoryview

    def join(self, other: Self) -> None:
        """Be another processor of the machine that `other` belongs to, before it runs anything.

        Stores of one are seen by all, code is coherent, the dirty log is one, and what software
        invalidates on one is invalidated on all. `other` has to live longer.
        """
        self.dirty_log.release()
        lib.engine_join(self._native, other._native)
        self.dirty_log = other.dirty_log[:]

    def invvpid_here(self, kind: InvVpid, vpid: int) -> None:
        """Invalidate a VPID's mappings on this processor alone."""
        lib.engine_invvpid_here(self._native, kind, vpid, 0)
