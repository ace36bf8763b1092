"""APIC virtualization as an option: the processor does what handlers of exits would do.

Manual, "APIC Virtualization and Virtual Interrupts". A vCPU's local APIC keeps its registers in its
virtual-APIC page; while software has it enabled the processor reads and writes them, delivers what
is requested there and ends it. Device models and other vCPUs post interrupts; a notification at
the next entry has the processor take them up. The guest sees what it sees without.
"""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.controls import ExitControls, PinBased, Primary, Secondary
from hwmodel.arch.vmcs import Field
from hwmodel.mem.ram import PAGE
from hwmodel.pcpu import Pcpu
from hwmodel.vmx.state import Vmcs
from vmm.controls import MSR_BITMAP_PAGE
from vmm.devices.lapic import LocalApic
from vmm.devices.lapic_msr import DEFAULT_BASE, PASSED_READS, PASSED_WRITES, Mode, mode_of
from vmm.devices.lapic_registers import SVR_ENABLED, Reg
from vmm.devices.lapic_virtual import DESCRIPTOR_BYTES, VirtualPage
from vmm.inject import deliver_pending
from vmm.memory.guest import PRIVATE_PAGES, GuestMemory

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

NOTIFICATION: Final = 0xF2
"""The vector that says "something is posted", as Linux' POSTED_INTR_VECTOR."""
_ACCESS_PAGE, _BITMAP, _DESCRIPTORS = PRIVATE_PAGES, PRIVATE_PAGES + 1, PRIVATE_PAGES + 2
_A_PAGE: Final = PAGE // DESCRIPTOR_BYTES  # descriptors in one
_FIRST: Final = _DESCRIPTORS + 256 // _A_PAGE
_PIN, _PRIMARY = Field.PIN_BASED_VM_EXEC_CONTROL, Field.CPU_BASED_VM_EXEC_CONTROL
_SECONDARY, _STATUS = Field.SECONDARY_VM_EXEC_CONTROL.index, Field.GUEST_INTR_STATUS.index
_EOI: Final = Field.EOI_EXIT_BITMAP0.index
_POSTED: Final = int(PinBased.of(process_posted_interrupts=1))
_TPR_SHADOW: Final = int(Primary.of(use_tpr_shadow=1))
_CR8: Final = int(Primary.of(cr8_load_exiting=1, cr8_store_exiting=1))
_ACCESSES: Final = int(Secondary.of(virtualize_apic_accesses=1))
_DELIVERS: Final = int(Secondary.of(apic_register_virtualization=1, virtual_interrupt_delivery=1))
_X2APIC: Final = int(Secondary.of(virtualize_x2apic_mode=1))
_ALL: Final = _ACCESSES | _DELIVERS | _X2APIC
NEEDED: Final = (
    PinBased(_POSTED), Primary(_TPR_SHADOW), Secondary(_ALL),
    ExitControls.of(acknowledge_interrupt_on_exit=1),
)  # fmt: skip
"""What the processor must allow."""


def pages_for_apics(cpus: int) -> int:
    """Return how many private pages the virtual APICs of so many vCPUs take."""
    return _FIRST - PRIVATE_PAGES + cpus


class ApicHardware:
    """What the vCPUs of a VM share: the APIC-access page, the bitmap of x2APIC mode, the line."""

    def __init__(self, memory: GuestMemory, pcpu: Pcpu, lapics: list[LocalApic]) -> None:
        """Give every local APIC its page."""
        self.memory: Final = memory
        self.pcpu: Final = pcpu
        self._lapics: Final = lapics
        self._is_mapped = False
        self._is_notifying = False
        self._write_bitmap()
        for index, lapic in enumerate(lapics):
            contents = lapic.page.contents()
            lapic.page = VirtualPage(self._view(self.page(index), PAGE), self._descriptor(index))
            lapic.page.fill(contents)
            lapic.moved = self.map_access_page
        self.map_access_page()

    def page(self, index: int) -> int:
        """Return where a vCPU's virtual-APIC page is."""
        return self.memory.private_page(_FIRST + index)

    def descriptor(self, index: int) -> int:
        """Return where its posted-interrupt descriptor is."""
        at = self.memory.private_page(_DESCRIPTORS + index // _A_PAGE)
        return at + index % _A_PAGE * DESCRIPTOR_BYTES

    def map_access_page(self) -> None:
        """Map the APIC-access page while every local APIC is at its place; else accesses exit."""
        wanted = all(lapic.covers(DEFAULT_BASE) for lapic in self._lapics)
        if wanted is not self._is_mapped:
            self._is_mapped = wanted
            page = self.memory.private_page(_ACCESS_PAGE)
            self.memory.map_device_page(DEFAULT_BASE, page if wanted else None)

    def notify(self, wanted: bool) -> None:
        """Raise the notification for the vCPU that is entered next, or take it back."""
        if wanted or self._is_notifying:
            self.pcpu.raise_interrupt(NOTIFICATION if wanted else None)
            self._is_notifying = wanted

    def _view(self, at: int, size: int) -> memoryview:
        return self.memory.ram.view[at : at + size]

    def _descriptor(self, index: int) -> memoryview:
        return self._view(self.descriptor(index), DESCRIPTOR_BYTES)

    def _write_bitmap(self) -> None:
        """The usual bitmap, but for what the processor answers in x2APIC mode."""
        bitmap = self._view(self.memory.private_page(_BITMAP), PAGE)
        bitmap[:] = self._view(self.memory.private_page(MSR_BITMAP_PAGE), PAGE)
        for direction, passed in ((0, PASSED_READS), (2048, PASSED_WRITES)):
            for msr in passed:
                bitmap[direction + msr // 8] &= ~(1 << msr % 8)


class VirtualApic:
    """One vCPU's side of it."""

    def __init__(self, shared: ApicHardware, index: int, vmcs: Vmcs, lapic: LocalApic) -> None:
        """`prepare` comes before the first entry."""
        self._shared: Final = shared
        self._index: Final = index
        self._vmcs: Final = vmcs
        self._fields: Final = vmcs.fields
        self._lapic: Final = lapic
        page = lapic.page
        assert isinstance(page, VirtualPage)
        self._page: Final = page

    def prepare(self) -> None:
        """Set what does not depend on the local APIC's mode."""
        vmcs, shared = self._vmcs, self._shared
        vmcs[Field.VIRTUAL_APIC_PAGE_ADDR] = shared.page(self._index)
        vmcs[Field.APIC_ACCESS_ADDR] = shared.memory.private_page(_ACCESS_PAGE)
        vmcs[Field.POSTED_INTR_DESC_ADDR] = shared.descriptor(self._index)
        vmcs[Field.POSTED_INTR_NV] = NOTIFICATION
        vmcs[Field.VM_EXIT_CONTROLS] |= int(ExitControls.of(acknowledge_interrupt_on_exit=1))

    def before_entry(self) -> bool:
        """Bring the VMCS up to date; whether the processor delivers from the virtual APIC."""
        mode = mode_of(self._lapic.base)
        delivers = bool(self._page.bytes[Reg.SVR + 1] & SVR_ENABLED >> 8) and mode != Mode.DISABLED
        wanted = _ACCESSES if mode is Mode.XAPIC else 0
        if delivers:
            wanted |= _DELIVERS | (_X2APIC if mode is Mode.X2APIC else 0)
        if self._fields[_SECONDARY] & _ALL != wanted:
            self._switch(wanted)
        if delivers:
            self._load_status()
        self._shared.notify(delivers and self._page.is_outstanding)
        return delivers

    def _switch(self, wanted: int) -> None:
        vmcs, delivers = self._vmcs, wanted & _DELIVERS
        self._fields[_SECONDARY] = self._fields[_SECONDARY] & ~_ALL | wanted
        vmcs[_PIN] = vmcs[_PIN] & ~_POSTED | (_POSTED if delivers else 0)
        vmcs[_PRIMARY] = vmcs[_PRIMARY] & ~(_TPR_SHADOW | _CR8) | (
            _TPR_SHADOW if delivers else _CR8
        )
        bitmap = _BITMAP if wanted & _X2APIC else MSR_BITMAP_PAGE
        vmcs[Field.MSR_BITMAP] = self._shared.memory.private_page(bitmap)

    def _load_status(self) -> None:
        """RVI and SVI from IRR and ISR; the ends of level-triggered interrupts exit."""
        page, fields = self._page, self._fields
        requested, serviced = max(page.requested(), 0), max(page.in_service(), 0)
        fields[_STATUS] = serviced << 8 | requested
        levels = page.level_triggered()
        for n in range(4):
            fields[_EOI + n] = levels >> 64 * n & (1 << 64) - 1


def deliver_virtual(vcpu: "Vcpu") -> None:
    """`deliver_pending` of a vCPU whose local APIC is the processor's."""
    assert vcpu.apicv is not None
    if vcpu.apicv.before_entry():
        deliver_pending(vcpu, vcpu.lapic.external_pending)
    else:
        deliver_pending(vcpu)
