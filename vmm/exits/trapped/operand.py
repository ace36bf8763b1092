"""Operands of a trapped instruction: registers, memory, the stack; and how it is finished."""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.addr import is_canonical
from hwmodel.arch.vmcs import Field
from hwmodel.mem.fault import Fault
from hwmodel.vmx.exit import Exit
from vmm.exits.emulator.machine import GuestFault
from vmm.exits.machine_view import MachineView
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

UD, SS, GP = 6, 12, 13
RFLAGS: Final = Field.GUEST_RFLAGS.index
RIP: Final = Field.GUEST_RIP.index
RSP: Final = Field.GUEST_RSP.index
BLOCKED: Final = Field.GUEST_INTERRUPTIBILITY_INFO.index
SHADOWS: Final = 0b11  # blocking by STI, by MOV SS
TF, IF, RF, VM, AC = 1 << 8, 1 << 9, 1 << 16, 1 << 17, 1 << 18
_DR7: Final = Field.GUEST_DR7.index
_DEBUG: Final = Field.GUEST_PENDING_DBG_EXCEPTIONS.index
_BS, _ENABLED_BREAKPOINT = 1 << 14, 1 << 12
_MASK32: Final = (1 << 32) - 1
_LENGTHS: Final = (1, 2, 8, 4)  # of a breakpoint, by DR7's LEN
_DATA: Final = (1, 3)  # DR7's R/W: writes; reads and writes


def register(vmexit: Exit) -> int:
    """Return the number in ModRM.rm."""
    return vmexit.instruction_info >> 4 & 15


def operand_size(vmexit: Exit) -> int:
    """Return 2, 4 or 8."""
    return vmexit.instruction_info >> 8 & 15


def is_memory(vmexit: Exit) -> bool:
    """Whether the operand lies in memory, at the exit's linear address."""
    return bool(vmexit.instruction_info >> 12 & 1)


def load(vcpu: "Vcpu", vmexit: Exit, linear: int, size: int) -> int:
    """Read an operand in guest memory as the instruction would. Raises GuestFault."""
    at = _reach(vcpu, linear, size, write=False)
    if at is None:
        return MachineView(vcpu, vmexit).read(linear, size)
    return int.from_bytes(vcpu.memory.ram.view[at : at + size], "little")


def store(vcpu: "Vcpu", vmexit: Exit, linear: int, size: int, value: int) -> None:
    """Write an operand in guest memory as the instruction would. Raises GuestFault."""
    at = _reach(vcpu, linear, size, write=True)
    if at is None:
        MachineView(vcpu, vmexit).write(linear, size, value)
        return
    vcpu.memory.ram.view[at : at + size] = value.to_bytes(size, "little")
    vcpu.memory.wrote(at, size)


def _reach(vcpu: "Vcpu", linear: int, size: int, *, write: bool) -> int | None:
    """Find it by the shadow's entries, the way of most accesses; note what breakpoints see."""
    assert vcpu.shadow is not None
    if vcpu.vmcs.fields[_DR7] & 0xFF:
        _note_access(vcpu, linear, size, write=write)
    return vcpu.shadow.reach(linear, size, write=write, user=vcpu.vmcs.native.cpl == 3)


def load_system(vcpu: "Vcpu", linear: int, size: int) -> int:
    """Read a descriptor or a TSS as the processor would: a supervisor, unseen by breakpoints."""
    got = vcpu.pcpu.read(vcpu.vmcs, linear, size)
    return int.from_bytes(_or_raise(got), "little")


def store_system(vcpu: "Vcpu", linear: int, size: int, value: int) -> None:
    """Write there. Raises GuestFault."""
    fault = vcpu.pcpu.write(vcpu.vmcs, linear, value.to_bytes(size, "little"))
    if fault is not None:
        _or_raise(fault)
    assert vcpu.shadow is not None
    vcpu.shadow.wrote(linear, size)


def _or_raise(got: bytes | Fault) -> bytes:
    """Where no memory is, all bytes are ones."""
    if not isinstance(got, Fault):
        return got
    if got.vector is None:
        return b"\xff" * 8
    raise GuestFault(got.vector, got.error_code, got.address)


def _note_access(vcpu: "Vcpu", linear: int, size: int, *, write: bool) -> None:
    """Data breakpoints: their #DB comes with the next entry, unless a fault does."""
    dr7 = vcpu.vmcs.fields[_DR7]
    for number in range(4):
        kind, length = dr7 >> 16 + 4 * number & 3, _LENGTHS[dr7 >> 18 + 4 * number & 3]
        at = vcpu.regs.dr(number) & -length
        meets = at < linear + size and linear < at + length
        if dr7 >> 2 * number & 3 and kind in _DATA and meets and (write or kind == _DATA[1]):
            vcpu.vmcs.fields[_DEBUG] |= 1 << number | _ENABLED_BREAKPOINT


def word(vcpu: "Vcpu", vmexit: Exit) -> int:
    """Return the 16-bit operand of LLDT, LTR, LMSW."""
    if is_memory(vmexit):
        return load(vcpu, vmexit, vmexit.guest_linear, 2)
    return vcpu.regs[register(vmexit)] & 0xFFFF


def put_word(vcpu: "Vcpu", vmexit: Exit, value: int) -> None:
    """Write what SLDT, STR, SMSW show: two bytes of memory, or a whole register."""
    if is_memory(vmexit):
        store(vcpu, vmexit, vmexit.guest_linear, 2, value & 0xFFFF)
    else:
        vcpu.set_register(register(vmexit), value, operand_size(vmexit))


def stack_at(vcpu: "Vcpu", sp: int) -> int:
    """Return the linear address of a stack pointer."""
    bits = vcpu.stack_bits()
    if bits == 64:
        return sp & (1 << 64) - 1
    return (sp & (1 << bits) - 1) + vcpu.vmcs[Field.GUEST_SS_BASE] & _MASK32


def set_sp(vcpu: "Vcpu", sp: int) -> None:
    """Write as much of RSP as the stack is wide."""
    bits, fields = vcpu.stack_bits(), vcpu.vmcs.fields
    mask = (1 << bits) - 1
    fields[RSP] = sp & mask if bits != 16 else fields[RSP] & ~0xFFFF | sp & 0xFFFF


def stack_fault(fault: GuestFault) -> GuestFault:
    """A non-canonical stack is #SS, not #GP."""
    return GuestFault(SS, 0) if fault.vector == GP else fault


def is_address(vcpu: "Vcpu", value: int) -> bool:
    """Whether a register that only keeps addresses takes it."""
    return is_canonical(value, vcpu.cpuid.model.linear_bits)


def retire(vcpu: "Vcpu", rip: int, *, traps: bool) -> Outcome:
    """Go on at `rip`: the instruction is done, and single-stepped if TF was on (`traps`)."""
    fields = vcpu.vmcs.fields
    fields[RIP] = rip
    fields[RFLAGS] &= ~RF
    fields[BLOCKED] &= ~SHADOWS
    if traps:
        fields[_DEBUG] |= _BS
    vcpu.vmcs.completed()
    return Outcome.RESUME
