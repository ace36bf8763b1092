"""What a page walk depends on beside memory: registers, controls, the processor's widths."""

from dataclasses import dataclass, field
from typing import Final

from hwmodel.arch.paging import EptPointer
from hwmodel.arch.registers import Cr0, Cr4, Efer
from hwmodel.mem.reference import Access, Exited, Raised, Reference

ADDRESS: Final = (1 << 52) - 4096
"""The address bits of an 8-byte entry."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The state of a virtual CPU, as far as a walk asks for it."""

    cr0: Cr0
    cr3: int
    cr4: Cr4
    efer: Efer
    eptp: EptPointer | None = None
    mode_based: bool = False
    """Mode-based execute control for EPT."""
    alignment_check: bool = False
    """EFLAGS.AC, which lifts SMAP for explicit accesses."""
    implicit: bool = False
    """An access to a descriptor table or the TSS: a supervisor's, whatever the CPL."""
    pkru: int = 0
    pkrs: int = 0
    pdptes: tuple[int, int, int, int] = (0, 0, 0, 0)
    physical_bits: int = 46
    has_1g: bool = True

    @property
    def beyond(self) -> int:
        """The address bits that this processor does not have: reserved in every entry."""
        return (1 << 52) - (1 << self.physical_bits)

    @property
    def is_long(self) -> bool:
        """Whether IA-32e mode is active."""
        return self.efer.lma


class WalkEndedError(Exception):
    """Unwinds a walk to its end; never leaves this folder."""

    def __init__(self, end: Raised | Exited) -> None:
        super().__init__()
        self.end = end


@dataclass(slots=True)
class Course:
    """A walk under way: for which access, over which memory, and what it has read so far."""

    linear: int
    access: Access
    user: bool
    memory: memoryview
    """Machine memory, by bytes."""
    effects: bool = False
    """Whether accessed and dirty flags are set."""
    references: list[Reference] = field(default_factory=list)

    def read(self, hpa: int, size: int) -> int:
        """Read an entry; where no memory is the bus answers all ones."""
        if hpa + size > len(self.memory):
            return (1 << 8 * size) - 1
        return int.from_bytes(bytes(self.memory[hpa : hpa + size]), "little")

    def note(self, hpa: int, flags: int) -> None:
        """Set flags in the low half of an entry, if this walk has effects."""
        if self.effects:
            value = self.read(hpa, 4) | flags
            self.memory[hpa : hpa + 4] = value.to_bytes(4, "little")
