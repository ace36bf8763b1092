"""The task-state segment in memory: its two layouts (manual: "Task Management Data Structures")."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hwmodel.arch.vmcs import Field
from hwmodel.mem.fault import Fault
from hwmodel.pcpu import READ, WRITE
from vmm.exits.emulator.machine import GuestFault

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

SELECTORS: Final = (
    Field.GUEST_ES_SELECTOR, Field.GUEST_CS_SELECTOR, Field.GUEST_SS_SELECTOR,
    Field.GUEST_DS_SELECTOR, Field.GUEST_FS_SELECTOR, Field.GUEST_GS_SELECTOR,
)  # fmt: skip
_FLAGS16: Final = 0x7FD5
_FLAGS32: Final = 0x3F7FD7
_PAGE: Final = 4096
_UPPER: Final = 0xFFFF_0000  # of a register that a 16-bit TSS loads: not defined by the manual


class Unbacked(Exception):  # noqa: N818 - the guest's tables lie where no memory is
    """A table lies where no memory is: `gpa`."""

    def __init__(self, gpa: int) -> None:
        """Record the guest-physical address."""
        super().__init__(gpa)
        self.gpa = gpa


@dataclass(frozen=True, slots=True)
class Layout:
    """Offsets in bytes. `unit` is the width of registers; `segments` counts selectors from ES."""

    unit: int
    rip: int
    segments: int
    ldt: int
    smallest_limit: int

    @property
    def saved(self) -> int:
        """End of what a switch writes into the old TSS."""
        return self.ldt

    @property
    def selectors(self) -> int:
        """Where ES stands: after RIP, RFLAGS and the eight registers."""
        return self.rip + 10 * self.unit


TSS32: Final = Layout(unit=4, rip=0x20, segments=6, ldt=0x60, smallest_limit=0x67)
TSS16: Final = Layout(unit=2, rip=0x0E, segments=4, ldt=0x2A, smallest_limit=0x2B)
_CR3, _TRAP = 0x1C, 0x64


@dataclass(frozen=True, slots=True)
class NewTask:
    """What a TSS says its task starts with. `cr3` is None in a 16-bit TSS; six `selectors`."""

    rip: int
    rflags: int
    registers: list[int]
    selectors: list[int]
    ldt: int
    cr3: int | None
    traps: bool


def read_linear(vcpu: "Vcpu", linear: int, size: int) -> bytes:
    """Read with the processor's own rights. Raises GuestFault, Unbacked."""
    got = vcpu.pcpu.read(vcpu.vmcs, linear & 0xFFFF_FFFF, size)
    return raise_for(got) if isinstance(got, Fault) else got


def write_linear(vcpu: "Vcpu", linear: int, data: bytes) -> None:
    """Write with the processor's own rights. Raises GuestFault, Unbacked."""
    if fault := vcpu.pcpu.write(vcpu.vmcs, linear & 0xFFFF_FFFF, data):
        raise_for(fault)
    if vcpu.shadow is not None:
        vcpu.shadow.wrote(linear & 0xFFFF_FFFF, len(data))


def raise_for(fault: Fault) -> bytes:
    """Turn what the pCPU reports into the exception of the guest."""
    if fault.vector is None:
        raise Unbacked(fault.gpa)
    raise GuestFault(fault.vector, fault.error_code, fault.address)


def check_pages(vcpu: "Vcpu", base: int, size: int, access: int) -> None:
    """Fault now, while nothing is changed, if a page of the range cannot be used."""
    for at in {base & 0xFFFF_FFFF, base + size - 1 & 0xFFFF_FFFF}:
        got = vcpu.pcpu.translate(vcpu.vmcs, at, access)
        if isinstance(got, Fault):
            raise_for(got)


def check_both(vcpu: "Vcpu", old: tuple[int, Layout], new: tuple[int, Layout]) -> None:
    """The manual's step "checks that the old TSS, the new TSS ... are paged into memory"."""
    check_pages(vcpu, old[0], old[1].saved, WRITE)
    check_pages(vcpu, new[0], new[1].smallest_limit + 1, READ)


def save_task(vcpu: "Vcpu", base: int, layout: Layout, rip: int, rflags: int) -> None:
    """Write the dynamic fields of the old TSS: RIP, RFLAGS, registers, selectors."""
    mask = (1 << layout.unit * 8) - 1
    words = [rip, rflags, *(vcpu.regs[n] for n in range(8))]
    image = b"".join((word & mask).to_bytes(layout.unit, "little") for word in words)
    for field in SELECTORS[: layout.segments]:
        image += vcpu.vmcs[field].to_bytes(layout.unit, "little")
    write_linear(vcpu, base + layout.rip, image)


def load_task(vcpu: "Vcpu", base: int, layout: Layout) -> NewTask:
    """Read the new TSS."""
    image = read_linear(vcpu, base, layout.smallest_limit + 1)

    def word(offset: int, size: int = layout.unit) -> int:
        return int.from_bytes(image[offset : offset + size], "little")

    wide, unit = layout is TSS32, layout.unit
    fill = 0 if wide else _UPPER
    selectors = [word(layout.selectors + n * unit, 2) for n in range(layout.segments)]
    return NewTask(
        rip=word(layout.rip),
        rflags=word(layout.rip + unit) & (_FLAGS32 if wide else _FLAGS16) | 2,
        registers=[word(layout.rip + (2 + n) * unit) | fill for n in range(8)],
        selectors=selectors + [0] * (6 - layout.segments),
        ldt=word(layout.ldt, 2),
        cr3=word(_CR3) if wide else None,
        traps=wide and bool(image[_TRAP] & 1),
    )
