"""Hardware task switches: VMX leaves all of it to software (manual: "Task Switching")."""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.events import EventType, Vector
from hwmodel.arch.qualification import TaskSwitchSource as Source
from hwmodel.arch.vmcs import Field
from hwmodel.vmx.exit import Exit
from vmm.exits import task_segments as segments
from vmm.exits import task_state as state
from vmm.exits.cr import load_pdptes
from vmm.exits.emulator.machine import GuestFault
from vmm.exits.task_state import TSS16, TSS32, Layout, NewTask, Unbacked
from vmm.exits.vectored import VectoredEvent, inject_during
from vmm.inject import inject_exception
from vmm.outcome import Outcome, StopReason

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_BUSY: Final = 2
_WIDE: Final = 8
_NT, _RF, _VM = 1 << 14, 1 << 16, 1 << 17
_TS_FLAG, _PG, _PAE = 1 << 3, 1 << 31, 1 << 5
_NMI_BLOCKED: Final = 1 << 3
_DR6_BT: Final = 1 << 15
_LOCAL_BREAKPOINTS: Final = 0x155  # DR7: L0 to L3 and LE
_NOT_FAULTS: Final = {Vector.DB, Vector.BP, Vector.OF, Vector.DF, Vector.MC}


def handle_task_switch(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Switch tasks, or give the guest the fault that stopped it: in the old task's context up to
    the point where the new TSS is loaded, in the new task's after it.
    """
    event = VectoredEvent.of(vmexit)
    try:
        _switch(vcpu, vmexit, event)
    except GuestFault as fault:
        return inject_during(vcpu, event, fault)
    except Unbacked as where:
        vcpu.stop(StopReason.UNHANDLED, f"a task switch needs a table at {where.gpa:#x}: no memory")
        return Outcome.STOP
    return Outcome.RESUME


def _switch(vcpu: "Vcpu", vmexit: Exit, event: VectoredEvent) -> None:
    source = Source(vmexit.qualification >> 30 & 3)
    selector = vmexit.qualification & 0xFFFF
    new = segments.read_descriptor(vcpu, selector)
    layout = TSS32 if new.rights & _WIDE else TSS16
    _leave(vcpu, vmexit, event, (new, layout))
    nested = source in (Source.CALL, Source.IDT_GATE)
    if nested:
        state.write_linear(vcpu, new.base, vcpu.vmcs[Field.GUEST_TR_SELECTOR].to_bytes(2, "little"))
    if source is not Source.IRET:
        segments.set_type_bit(vcpu, new, _BUSY, on=True)
    task = state.load_task(vcpu, new.base, layout)
    segments.set_segment(vcpu, segments.TR, new, new.rights | _BUSY)
    vcpu.vmcs.completed()
    _enter(vcpu, task, nested, layout)
    _after(vcpu, task, event, layout)


def _leave(
    vcpu: "Vcpu", vmexit: Exit, event: VectoredEvent, new: tuple[segments.Descriptor, Layout]
) -> None:
    """Save the old task; what can fault here faults before anything is changed."""
    source = Source(vmexit.qualification >> 30 & 3)
    old = vcpu.vmcs[Field.GUEST_TR_SELECTOR]
    base = vcpu.vmcs[Field.GUEST_TR_BASE]
    layout = TSS32 if vcpu.vmcs[Field.GUEST_TR_AR_BYTES] & _WIDE else TSS16
    if vcpu.vmcs[Field.GUEST_TR_LIMIT] < layout.saved - 1:
        raise GuestFault(Vector.TS, old & 0xFFFC)
    state.check_both(vcpu, (base, layout), (new[0].base, new[1]))
    if source in (Source.JMP, Source.IRET):
        segments.set_type_bit(vcpu, segments.read_descriptor(vcpu, old), _BUSY, on=False)
    rip, rflags = vcpu.regs.rip, vcpu.regs.rflags
    if source is not Source.IDT_GATE or event.by_instruction:
        rip += vmexit.instruction_length
        rflags &= ~_RF
    elif event.is_exception and event.vector not in _NOT_FAULTS:
        rflags |= _RF
    if source is Source.IRET:
        rflags &= ~_NT
    state.save_task(vcpu, base, layout, rip, rflags)


def _enter(vcpu: "Vcpu", task: NewTask, nested: bool, layout: Layout) -> None:
    """Load the registers, then the segments with their checks."""
    vcpu.set_cr0(vcpu.guest_cr0() | _TS_FLAG)
    vcpu.regs.dr7 &= ~_LOCAL_BREAKPOINTS
    _set_address_space(vcpu, task.cr3)
    vcpu.regs.rip = task.rip
    vcpu.regs.rflags = task.rflags | (_NT if nested else 0)
    for number, value in enumerate(task.registers):
        vcpu.regs[number] = value
    v8086 = layout is TSS32 and bool(task.rflags & _VM)
    cpl = 3 if v8086 else task.selectors[segments.CS] & 3
    segments.set_selectors(vcpu, task.selectors, task.ldt, cpl)
    if v8086:
        segments.load_v8086(vcpu, task.selectors)
    segments.load_ldt(vcpu, task.ldt)
    if not v8086:
        for segment in segments.LOAD_ORDER:
            segments.load_segment(vcpu, segment, task.selectors[segment], cpl)
    if task.rip > vcpu.vmcs[Field.GUEST_CS_LIMIT]:
        raise GuestFault(Vector.GP, 0)


def _set_address_space(vcpu: "Vcpu", cr3: int | None) -> None:
    if cr3 is None or not vcpu.regs.cr0 & _PG:
        return
    if vcpu.regs.cr4 & _PAE and not load_pdptes(vcpu, cr3):
        raise GuestFault(Vector.GP, 0)
    vcpu.regs.cr3 = cr3  # the entry drops the old translations


def _after(vcpu: "Vcpu", task: NewTask, event: VectoredEvent, layout: Layout) -> None:
    """What the new task finds: blocking, the error code on its stack, its debug trap."""
    blocking = vcpu.vmcs[Field.GUEST_INTERRUPTIBILITY_INFO] & _NMI_BLOCKED
    if event.valid and event.kind == EventType.NMI:
        blocking = _NMI_BLOCKED
    vcpu.vmcs[Field.GUEST_INTERRUPTIBILITY_INFO] = blocking
    vcpu.look_for_events = True
    if event.error is not None:
        _push(vcpu, event.error, layout.unit)
    if task.traps:
        vcpu.regs.dr6 |= _DR6_BT
        inject_exception(vcpu, Vector.DB, None)


def _push(vcpu: "Vcpu", value: int, size: int) -> None:
    """Push an error code; #SS(0) when the stack has no room."""
    mask = 0xFFFF_FFFF if vcpu.stack_bits() == 32 else 0xFFFF
    sp = vcpu.regs.rsp - size & mask
    if sp + size - 1 > vcpu.vmcs[Field.GUEST_SS_LIMIT]:
        raise GuestFault(Vector.SS, 0)
    state.write_linear(
        vcpu, vcpu.vmcs[Field.GUEST_SS_BASE] + sp, value.to_bytes(4, "little")[:size]
    )
    vcpu.regs.rsp = vcpu.regs.rsp & ~mask | sp
