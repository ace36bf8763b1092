"""What a boot protocol decides: which bytes lie where, and the state of the first processor.

A ``BootPlan`` is a value. The loaders of this room make one from an image and touch no machine;
``vmm.vm`` copies the placements into guest memory and gives the start state to vCPU 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

Content = bytes | memoryview
"""What lies somewhere; a large image's parts are views of its file."""


class Mode(Enum):
    """The processor mode of the first instruction."""

    REAL16 = "real"  # CR0.PE = 0; 16-bit segments, limit 0xffff, base from the StartState
    PROT32 = "protected"  # CR0.PE = 1, PG = 0; flat 4 GiB segments
    LONG64 = "long"  # CR0.PE = PG = 1, CR4.PAE = 1, EFER.LME = LMA = 1; CS.L = 1


@dataclass(frozen=True, slots=True)
class Placement:
    """Bytes to copy to guest memory before the start. ``name`` is for messages."""

    gpa: int
    data: Content
    name: str = ""

    @property
    def end(self) -> int:
        """Return the first address after the bytes."""
        return self.gpa + len(self.data)


@dataclass(frozen=True, slots=True)
class Selector:
    """A segment register as loaded at the start; limit and rights follow from the mode."""

    selector: int
    base: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """A descriptor-table register: linear base, and limit (size in bytes minus one)."""

    base: int = 0
    limit: int = 0xFFFF


@dataclass(frozen=True, slots=True)
class StartState:
    """Registers of the first processor; what is not named here is as after INIT.

    ``gpr`` maps "rax" ... "r15" to values; absent registers are 0. ``rip`` is the offset in CS.
    ``ds`` is loaded into DS, ES, FS, GS and SS. ``cr4`` are bits beyond those that the mode needs
    (LONG64 has PAE by itself). Interrupts are off. In PROT32 and LONG64, ``gdt`` describes a table
    in guest memory that holds the selectors given here, so that a guest which never loads its own
    can still return from an interrupt; in REAL16 it is what INIT leaves.
    """

    mode: Mode
    rip: int
    gpr: Mapping[str, int] = field(default_factory=dict)
    cr3: int = 0
    cr4: int = 0
    cs: Selector = Selector(0)
    ds: Selector = Selector(0)
    gdt: Table = Table()
    rflags: int = 0x2


@dataclass(frozen=True, slots=True)
class BootPlan:
    """How to start one image.

    ``placements`` do not overlap, are sorted by address and lie in RAM. Memory they do not name is
    zero. ``symbols_source`` is an ELF file to read symbols from, or None. ``slide`` is how far the
    kernel lies from where it is linked, in virtual and in physical memory, in bytes.
    """

    protocol: str
    placements: tuple[Placement, ...]
    start: StartState
    symbols_source: bytes | None = None
    pv_pages: tuple[int, int] = (0, 0)
    """Of a Xen PV guest: the machine frames of its xenstore and console pages."""
    slide: tuple[int, int] = (0, 0)
