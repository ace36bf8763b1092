"""A machine whose VMCS passes every entry check, in any mode, and what a case does to it."""

from dataclasses import replace

from hwmodel.arch.controls import VmFunction
from hwmodel.arch.vmcs import Field
from hwmodel.pcpu import Pcpu
from hwmodel.vmx.capabilities import IMPLEMENTED, REVISION, Capabilities
from hwmodel.vmx.entry_view import EntryView
from hwmodel.vmx.exit import Exit
from tests.bare import CODE, Bare, Mode
from tests.hwmodel.vmx import cases, guest_cases
from tests.hwmodel.vmx.cases import Case

APIC_PAGE, REGION, DESCRIPTOR = 0x30_0000, 0x30_1000, 0x30_2000
_MODES = {"real": Mode.REAL, "long": Mode.LONG}
EVERYTHING = Capabilities(
    {word: word(word.defined()) for word in IMPLEMENTED} | {VmFunction: VmFunction(1)},
    ept_accessed_dirty=False,
)
"""Every control that has a name: checks are about more of them than the engine honours.

But no accessed and dirty flags for EPT, of which a check is that they are not asked for.
"""


class Entering(Bare):
    """A `Bare` in one of the modes `long`, `protected`, `real`, `v8086`, `pae`."""

    def __init__(self, mode: str = "long") -> None:
        super().__init__(_MODES.get(mode, Mode.PROTECTED))
        self.vmcs.native.region = REGION
        self.allow(EVERYTHING)
        self.word(REGION, REVISION)
        for field, value in {
            Field.VIRTUAL_APIC_PAGE_ADDR: APIC_PAGE,
            Field.POSTED_INTR_DESC_ADDR: DESCRIPTOR,
            Field.VIRTUAL_PROCESSOR_ID: 1,
            Field.TSC_MULTIPLIER: 1 << 48,
            Field.EPT_POINTER: self.ept.pointer(accessed_dirty=False),
        }.items():
            self.vmcs[field] = value
        if mode in ("v8086", "pae"):
            getattr(self, f"_{mode}")()
        self.load("hlt" if mode != "v8086" else "nop")

    def allow(self, capabilities: Capabilities) -> None:
        """Make the processor one with these capabilities, and the checks be made anew."""
        self.capabilities = capabilities
        self.pcpu.set_capabilities(capabilities)

    def _v8086(self) -> None:
        for name in ("ES", "CS", "SS", "DS", "FS", "GS"):
            self._segment(name, CODE >> 4, CODE, 0xFFFF, 0xF3)
        self.regs.rip, self.regs.rflags = 0, 1 << 17 | 2

    def _pae(self) -> None:
        self.regs.cr0 |= 1 << 31
        self.regs.cr4 |= 1 << 5
        self.regs.cr3 = 0x1000
        self.word(0x1000, 0x3001)
        self.vmcs[Field.GUEST_PDPTR0] = 0x3001

    def change(self, case: Case) -> None:
        """Do what a case says."""
        if case.setup is not None:
            self.change(case.setup)
        if case.root_32:
            self.allow(replace(self.capabilities, root_is_long_mode=False))
        for field, value in case.set.items():
            self.vmcs[field] = value
        for field, value in case.on.items():
            self.vmcs[field] |= value
        for field, value in case.off.items():
            self.vmcs[field] &= ~value
        for at, value in case.memory.items():
            self.word(at, value)

    def view(self) -> EntryView:
        """What the Python twin looks at."""
        fields = {field: self.vmcs[field] for field in Field}
        return EntryView(fields, self.capabilities, self._read, current=REGION)

    def _read(self, hpa: int, size: int) -> int:
        if hpa + size > len(self.ram.view):
            return (1 << size * 8) - 1
        return self.peek(hpa, size)

    def attempt(self) -> Exit:
        """Enter for one instruction at most."""
        return self.enter(self.clock.now + 1)


def told(pcpu: Pcpu, vmexit: Exit) -> tuple[str, int, str | None]:
    """How an entry failed: what it is told by, error or qualification, and the check."""
    return vmexit.name, vmexit.qualification, pcpu.failed_check


GUEST = guest_cases.REGISTERS + guest_cases.SEGMENTS + guest_cases.EVENTS
ALL = cases.CONTROLS + cases.HOST + GUEST
QUALIFICATIONS = {  # "VM-Entry Failures During or After Loading Guest State"; all others 0
    "pdptes_reserved": 2, "blocking_sti_excludes_nmi": 3, "link_pointer_address": 4,
    "link_pointer_revision": 4, "link_pointer_is_another": 4,
}  # fmt: skip


def expected(case: Case) -> tuple[str, int, str]:
    """How the manual has the failure told."""
    if case in cases.CONTROLS:
        return "VM_FAIL", 7, case.check
    if case in cases.HOST:
        return "VM_FAIL", 8, case.check
    return "INVALID_STATE", QUALIFICATIONS.get(case.check, 0), case.check
