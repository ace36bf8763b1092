"""Going back to one state again and again, in a tenth of a millisecond: test suites stand on it.

A `ResetPoint` keeps a mirror of RAM beside its snapshot, so that going back to it is one call into
C for the pages written since; devices and dialects are put back only where something may have
touched them. Whatever is left out in that way is exactly as it was: the tests hold the digest
against that of `state.put`.
"""

from typing import Final

from hwmodel.arch.exits import ExitReason as R
from vmm.devices.platform import Board
from vmm.state import snapshot as state
from vmm.state.pages import PageKeeper
from vmm.state.snapshot import Snapshot
from vmm.vcpu import Vcpu

_LEAVE_DEVICES_ALONE: Final = (
    R.CPUID, R.HLT, R.TRIPLE_FAULT, R.EXCEPTION_NMI, R.INVD, R.WBINVD, R.INVLPG, R.INVPCID,
    R.RDTSC, R.RDTSCP, R.RDPMC, R.DR_ACCESS, R.GDTR_IDTR, R.LDTR_TR, R.PAUSE_INSTRUCTION,
    R.RDRAND, R.RDSEED, R.INVALID_STATE,
)  # fmt: skip
"""Exits whose handlers touch a vCPU alone."""


class ResetPoint:
    """One state of one VM, and the quickest way back to it."""

    def __init__(
        self, snapshot: Snapshot, keeper: PageKeeper, vcpus: list[Vcpu], board: Board
    ) -> None:
        """Make the way back to `snapshot`, which the VM is in now."""
        self.snapshot: Final = snapshot
        self._keeper, self._vcpus, self._board = keeper, vcpus, board
        self._pcpu = vcpus[0].pcpu
        self._counts: Final = self._pcpu.exit_counts()
        self._mirror: Final = keeper.mirror(snapshot.pages)
        self._mark = (-1, -1)

    def restore(self) -> None:
        """Make memory, processors and devices what they were."""
        if not self._keeper.revert(self.snapshot.pages, self._mirror):
            state.put(self.snapshot, self._keeper, self._vcpus, self._board)
        else:
            self._restore_processors()
            if self._touches() != self._mark or self._vcpus[0].apicv is not None:
                self._restore_devices()
            self._vcpus[0].memory.note_exchanged()
            self._pcpu.flush_tlb()
        self._mark = self._touches()

    def _restore_processors(self) -> None:
        self._pcpu.set_clock(self.snapshot.instructions, self.snapshot.cycles, self.snapshot.ledger)
        for vcpu, written in zip(self._vcpus, self.snapshot.vcpus, strict=True):
            state.put_vcpu(vcpu, written)

    def _restore_devices(self) -> None:
        self._board.restore(dict(self.snapshot.devices))
        self._vcpus[0].dialects.restore(dict(self.snapshot.dialects))
        self._board.next_event()

    def _touches(self) -> tuple[int, int]:
        """What has changed if a device was touched, or an exit came whose handler may have."""
        self._board.next_event()
        counts = self._counts
        quiet = sum(counts[reason] for reason in _LEAVE_DEVICES_ALONE)
        return sum(counts) - quiet, self._board.looks
