"""What the processor leaves to software where it virtualizes the local APIC."""

from typing import TYPE_CHECKING, Final

from hwmodel.mem.ram import PAGE
from hwmodel.vmx.exit import Exit
from vmm.exits.ept import BY_DELIVERY, BY_FETCH, BY_WALK, emulate_instruction, move, stop_at
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_LINEAR_READ, _LINEAR_WRITE = 0, 1  # access types of the exit qualification, bits 15:12
_WHY_NOT: Final = {2: BY_FETCH, 15: BY_WALK}  # linear fetch; guest-physical


def handle_apic_access(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """An access to the registers that is not virtualized: carry the instruction out."""
    access, offset = vmexit.qualification >> 12 & 15, vmexit.qualification & PAGE - 1
    gpa = vcpu.lapic.base & -PAGE | offset
    vmexit.show_access(vmexit.guest_linear, gpa, vmexit.qualification)
    if vcpu.vmcs.native.mov_size:
        return move(vcpu, vmexit)
    if access in (_LINEAR_READ, _LINEAR_WRITE):
        return emulate_instruction(vcpu, vmexit)
    return stop_at(vcpu, vmexit, _WHY_NOT.get(access, BY_DELIVERY))


def handle_apic_write(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """A register has been written; what that causes is software's business."""
    vcpu.look_for_events = True
    offset: Final = vmexit.qualification & PAGE - 1
    vcpu.lapic.write_register(offset, vcpu.lapic.page[offset])
    return Outcome.STOP if vcpu.is_stopped() else Outcome.RESUME


def handle_eoi_induced(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """A level-triggered interrupt has ended: the I/O APIC may send it again."""
    vcpu.look_for_events = True
    vcpu.lapic.serviced(vmexit.qualification & 0xFF)
    return Outcome.RESUME
