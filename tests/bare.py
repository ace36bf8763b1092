"""A physical CPU with nothing around it: code in, exits out. No hypervisor, no devices.

Guest-physical memory of `Bare` (4 MiB behind an EPT; in long mode mapped one to one, 2 MiB pages):

    0x1000  PML4, PDPT, PD (a page each)    0x6000  TSS, 0x7000 first-level stack of ring 0
    0x4000  IDT                             0x9000  top of the stack
    0x5000  GDT                             0x10000 code
"""

import struct
from enum import Enum
from functools import cache
from typing import Any

from keystone import KS_ARCH_X86, KS_MODE_16, KS_MODE_32, KS_MODE_64, Ks

from hwmodel.arch.controls import PinBased, Primary, Secondary
from hwmodel.arch.vmcs import Field
from hwmodel.mem.ram import PAGE, Ram
from hwmodel.pcpu import Pcpu
from hwmodel.timing.clock import Clock
from hwmodel.vmx.capabilities import Capabilities
from hwmodel.vmx.exit import Exit
from hwmodel.vmx.host import CR0_FORCED, CR4_FORCED, prepare
from hwmodel.vmx.state import Vmcs
from vmm.memory.ept import Ept, Slot, pages_for

MIB = 1 << 20
GUEST = 4 * MIB
"""Bytes of guest-physical memory; the EPT lies behind it."""
FOREVER = 1 << 40
PML4, PDPT, PD, IDT, GDT, TSS, STACK, CODE = (
    0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000, 0x9000, 0x10000,
)  # fmt: skip
CS32, CS64, DATA, USER_CS, USER_DATA = 0x08, 0x10, 0x18, 0x20 | 3, 0x28 | 3
_KS_MODES = {16: KS_MODE_16, 32: KS_MODE_32, 64: KS_MODE_64}


class Mode(Enum):
    """The mode that code starts in; the value is the size of its code segment."""

    REAL = 16
    PROTECTED = 32
    LONG = 64


@cache
def assemble(text: str, at: int = CODE, bits: int = 64) -> bytes:
    """Machine code for Intel syntax; `at` is the address of its first byte."""
    code, _ = Ks(KS_ARCH_X86, _KS_MODES[bits]).asm(text, at, as_bytes=True)
    return bytes(code)


def ram_with_ept(size: int) -> Ram:
    """Machine memory for a guest of `size` bytes and the tables of its EPT behind it."""
    return Ram(size + pages_for([Slot(0, size, 0)]) * PAGE)


def identity_ept(ram: Ram, size: int) -> Ept:
    """Map guest-physical memory one to one, by tables behind it."""
    return Ept(ram, size, ram.size - size, [Slot(0, size, 0)])


def make_enterable(vmcs: Vmcs, capabilities: Capabilities, eptp: int = 0x1E) -> None:
    """Give a VMCS after reset what an entry of an unrestricted guest checks, and no more."""
    prepare(vmcs, capabilities)
    vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] |= int(Primary.of(activate_secondary_controls=1))
    vmcs[Field.SECONDARY_VM_EXEC_CONTROL] = int(Secondary.of(enable_ept=1, unrestricted_guest=1))
    vmcs[Field.EPT_POINTER] = eptp
    vmcs[Field.GUEST_CR0] |= CR0_FORCED
    vmcs[Field.GUEST_CR4] |= CR4_FORCED
    vmcs[Field.CR4_GUEST_HOST_MASK] = CR4_FORCED


class Bare:
    """One pCPU, one VMCS in `mode`, and 4 MiB; `controls` are added to what the mode needs."""

    def __init__(self, mode: Mode = Mode.LONG, *, pages_4k: bool = False) -> None:
        self.mode = mode
        self.ram = ram_with_ept(GUEST)
        self.clock = Clock()
        self.pcpu = Pcpu(self.ram, self.clock)
        self.vmcs = Vmcs()
        self.regs = self.vmcs.registers
        self._controls()
        self._tables(pages_4k)
        if mode is not Mode.REAL:
            self._protected()
        if mode is Mode.LONG:
            self._long()
        self.regs.rip, self.regs.rsp = CODE, STACK
        if mode is Mode.REAL:
            self._segment("CS", CODE >> 4, CODE, 0xFFFF, 0x9B)
            self._segment("SS", 0, 0, 0xFFFF, 0x93)
            self.regs.rip = 0

    def _controls(self) -> None:
        self.ept = identity_ept(self.ram, GUEST)
        make_enterable(self.vmcs, self.pcpu.capabilities, self.ept.pointer())
        self.vmcs[Field.PIN_BASED_VM_EXEC_CONTROL] |= int(
            PinBased.of(nmi_exiting=1, virtual_nmis=1)
        )
        self.control(hlt_exiting=1, uncond_io_exiting=1)
        self.control2(enable_rdtscp=1)

    def control(self, **flags: int) -> None:
        """Set primary execution controls."""
        self.vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] |= int(Primary.of(**flags))

    def control2(self, **flags: int) -> None:
        """Set secondary execution controls."""
        self.vmcs[Field.SECONDARY_VM_EXEC_CONTROL] |= int(Secondary.of(**flags))

    def intercept(self, *vectors: int) -> None:
        """Make exceptions exit."""
        self.vmcs[Field.EXCEPTION_BITMAP] |= sum(1 << vector for vector in vectors)

    def _tables(self, pages_4k: bool) -> None:
        self.word(PML4, PDPT | 7)
        self.word(PDPT, PD | 7)
        for n in range(2):
            self.word(PD + 8 * n, n * 2 * MIB | 0x87)
        if pages_4k:  # the second 2 MiB in pages of 4 KiB, their table behind everything else
            self.word(PD + 8, 0x20000 | 7)
            for n in range(512):
                self.word(0x20000 + 8 * n, 2 * MIB + n * 4096 | 7)
        rows = (
            (CS32, 0xCF9B), (CS64, 0xAF9B), (DATA, 0xCF93), (USER_CS & ~3, 0xAFFB),
            (USER_DATA & ~3, 0xCFF3),
        )  # fmt: skip
        for selector, rights in rows:
            self.word(GDT + selector, 0xFFFF | (rights & 0xF0FF) << 40 | (rights & 0x0F00) << 40)
        self.word(TSS + 4, 0x8000)  # RSP0

    def _segment(self, name: str, selector: int, base: int, limit: int, rights: int) -> None:
        self.vmcs[Field[f"GUEST_{name}_SELECTOR"]] = selector
        self.vmcs[Field[f"GUEST_{name}_BASE"]] = base
        self.vmcs[Field[f"GUEST_{name}_LIMIT"]] = limit
        self.vmcs[Field[f"GUEST_{name}_AR_BYTES"]] = rights

    def _protected(self) -> None:
        for name in ("ES", "SS", "DS", "FS", "GS"):
            self._segment(name, DATA, 0, 0xFFFF_FFFF, 0xC093)
        self._segment("CS", CS32, 0, 0xFFFF_FFFF, 0xC09B)
        self._segment("TR", 0x30, TSS, 0x67, 0x8B)
        self.regs.cr0 = 0x31
        self.vmcs[Field.GUEST_GDTR_BASE], self.vmcs[Field.GUEST_GDTR_LIMIT] = GDT, 0x2F
        self.vmcs[Field.GUEST_IDTR_BASE], self.vmcs[Field.GUEST_IDTR_LIMIT] = IDT, 0xFFF

    def _long(self) -> None:
        self._segment("CS", CS64, 0, 0xFFFF_FFFF, 0xA09B)
        self.regs.cr0, self.regs.cr4, self.regs.cr3 = 0x8000_0031, 0x2620, PML4
        self.regs.efer = 0x500

    def word(self, at: int, value: int) -> None:
        """Write 8 bytes of memory before the start."""
        self.ram.view[at : at + 8] = struct.pack("<Q", value)

    def peek(self, at: int, size: int = 8) -> int:
        """Read memory."""
        return int.from_bytes(self.ram.view[at : at + size], "little")

    def gate(self, vector: int, handler: int, *, dpl: int = 0, ist: int = 0) -> None:
        """Put a 64-bit interrupt gate into the IDT."""
        low = handler & 0xFFFF | CS64 << 16 | ist << 32 | (0x8E | dpl << 5) << 40
        self.word(IDT + vector * 16, low | (handler >> 16 & 0xFFFF) << 48)
        self.word(IDT + vector * 16 + 8, handler >> 32)

    def load(self, text: str, at: int = CODE) -> bytes:
        """Assemble to memory, as the host's write; return the code."""
        code = assemble(text, at if self.mode is not Mode.REAL else at - CODE, self.mode.value)
        self.poke(at, code)
        return code

    def poke(self, at: int, data: bytes) -> None:
        """Write memory as the host does: the engine hears of it."""
        self.ram.view[at : at + len(data)] = data
        self.pcpu.host_wrote(at, len(data))

    def enter(self, until: int = FOREVER) -> Exit:
        """Enter once; the exit returned stays as it is."""
        return self.pcpu.enter(self.vmcs, until).copy()

    def run(self, text: str, **registers: int) -> Exit:
        """Load code, set registers, enter once."""
        self.load(text)
        for name, value in registers.items():
            setattr(self.regs, name, value)
        return self.enter()

    def skip(self, vmexit: Exit) -> None:
        """Move past the instruction that exited."""
        self.vmcs.skip(vmexit.instruction_length)

    def state(self) -> tuple[Any, ...]:
        """Everything a guest can know, and the two counts."""
        self.pcpu.sync(self.vmcs)
        return (
            self.regs.as_dict(),
            {f: self.vmcs[f] for f in Field if f.name.startswith("GUEST_")},
            self.pcpu.fxsave(self.vmcs),
            bytes(self.ram.view),
            self.pcpu.instructions,
            self.clock.now,
        )

    def close(self) -> None:
        """Free the engine."""
        self.pcpu.close()
