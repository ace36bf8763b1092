"""EPT violations: memory that no slot backs is a device; the instruction is carried out here."""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.vmcs import Field
from hwmodel.mem.ram import PAGE
from hwmodel.timing.ledger import Heading
from hwmodel.vmx.exit import Exit
from vmm.devices.lapic_registers import PLAIN
from vmm.exits.absent import handle_absent
from vmm.exits.bounce import try_bounce
from vmm.exits.emulate import MAX_ITERATIONS, Status, emulate
from vmm.exits.machine_view import MachineView
from vmm.inject import inject_exception
from vmm.outcome import Outcome, StopReason

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_TF: Final = 1 << 8
_FETCH: Final = 1 << 2
_TRANSLATION: Final = 1 << 8
_DELIVERING: Final = 1 << 31
BY_DELIVERY: Final = "an event was delivered to a stack or table without memory"
BY_FETCH: Final = "instructions were fetched where no memory is"
BY_WALK: Final = "page tables lie where no memory is"


def handle_ept_violation(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Emulate an access to a device; what cannot be one stops the guest."""
    if vcpu.memory.absent and vmexit.guest_physical & -PAGE in vcpu.memory.absent:
        return handle_absent(vcpu, vmexit)
    if vcpu.vmcs.native.mov_size:
        return move(vcpu, vmexit)
    ordinary = vmexit.qualification & (_FETCH | _TRANSLATION) == _TRANSLATION
    if ordinary and not vmexit.idt_vectoring_info:
        return emulate_instruction(vcpu, vmexit)
    return _refuse(vcpu, vmexit)


def move(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Do what the decode assist describes: one MOV, one access."""
    assist = vcpu.vmcs.native
    size, gpa = assist.mov_size, vmexit.guest_physical
    if not assist.mov_writes and gpa & 0xFFF in PLAIN and vcpu.lapic.covers(gpa):
        vcpu.set_register(assist.mov_register, vcpu.lapic.read(gpa & 0xFFF, size), size)
        return Outcome.SKIP  # nothing has changed
    vcpu.look_for_events = True
    if assist.mov_writes:
        vcpu.board.write_memory(vcpu.index, gpa, size, assist.mov_value)
    else:
        value = vcpu.board.read_memory(vcpu.index, gpa, size)
        vcpu.set_register(assist.mov_register, value, size)
    return Outcome.STOP if vcpu.is_stopped() else Outcome.SKIP


def _refuse(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    if vmexit.idt_vectoring_info & _DELIVERING:
        return stop_at(vcpu, vmexit, BY_DELIVERY)
    return stop_at(vcpu, vmexit, BY_FETCH if vmexit.qualification & _FETCH else BY_WALK)


def emulate_instruction(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Carry out the instruction at RIP on the vCPU, its memory and its devices."""
    vcpu.look_for_events = True
    steps = 1 if vcpu.regs.rflags & _TF else MAX_ITERATIONS  # TF traps after each iteration
    done = emulate(MachineView(vcpu, vmexit), steps)
    if done.status is Status.DONE:
        vcpu.vmcs.skip(0)  # book the instruction and what follows each: shadow ends, TF traps
    elif done.status is Status.DONE_PARTIAL:
        vcpu.pcpu.book(
            vcpu.vmcs, Heading.DEVICE, MAX_ITERATIONS, vmexit.reason
        )  # a REP without end must reach its limits too
    elif done.status is Status.FAULT:
        assert done.vector is not None
        inject_exception(vcpu, done.vector, done.error_code, done.address or 0)
    elif done.status is Status.UNSUPPORTED:
        return try_bounce(vcpu, vmexit) or stop_at(vcpu, vmexit, f"cannot emulate {done.text}")
    return Outcome.STOP if vcpu.is_stopped() else Outcome.RESUME


def stop_at(vcpu: "Vcpu", vmexit: Exit, why: str) -> Outcome:
    """Stop the guest: what it did there no device can answer."""
    where = f"guest-physical {vmexit.guest_physical:#x}"
    vcpu.stop(StopReason.UNHANDLED, f"{why}: {where}, linear {vmexit.guest_linear:#x}")
    return Outcome.STOP


__all__ = [
    "BY_DELIVERY",
    "BY_FETCH",
    "BY_WALK",
    "Field",
    "emulate_instruction",
    "handle_ept_violation",
    "move",
    "stop_at",
]
