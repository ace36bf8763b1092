"""Exits of a Xen PV guest: hypercalls for software, CPUID, MSRs, the end of a crashed domain."""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.exits import ExitReason as R
from hwmodel.arch.msr import Msr
from hwmodel.vmx.exit import Exit
from vmm.exits import cpuid, engine_stop, exception, plain
from vmm.exits.msr import SPECULATION, has_msr, read_speculation, write_speculation
from vmm.inject import inject_exception
from vmm.outcome import Outcome, StopReason
from vmm.pv.xen.sched_op import After

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.vcpu import Vcpu

_GP: Final = 13
_LOW: Final = 0xFFFF_FFFF
_READ: Final = {
    Msr.IA32_APICBASE: 0xFEE0_0900, Msr.IA32_MISC_ENABLE: 1, Msr.IA32_CR_PAT: 0x0501_0004_0007_0406,
    Msr.EFER: 0xD01, Msr.IA32_PLATFORM_ID: 0, Msr.IA32_UCODE_REV: 0, Msr.IA32_DEBUGCTLMSR: 0,
}  # fmt: skip
"""What Xen lets a PV guest read (xen/arch/x86/pv/emul-priv-op.c); its PAT is Xen's own."""
_IGNORED: Final = frozenset({*_READ, Msr.IA32_TSC})
CRASHES: Final = {
    1: "the stack for a bounce frame cannot be written", 2: "no handler is registered for a trap",
    3: "iret's frame cannot be read", 4: "it goes to user mode without a user page table",
    5: "no failsafe callback is registered",
}  # fmt: skip


def handle_hypercall(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Have the domain carry it out, and do what follows."""
    assert vcpu.domain is not None
    vcpu.look_for_events = True
    after = vcpu.domain.answer(vcpu.index)
    if after is After.GO_ON:
        return Outcome.SKIP
    if after is After.AGAIN:
        return Outcome.RESUME
    if after is After.SLEEP:
        vcpu.domain.slept(vcpu.index)
        return Outcome.HALT
    vcpu.vmcs.skip_exit()
    if after is After.STOP:
        return Outcome.STOP
    count = len(vcpu.board.lapics)
    others = ((vcpu.index + distance) % count for distance in range(1, count))
    yields = any(vcpu.give_turn(index) for index in others)
    vcpu.pcpu.settle(vcpu.vmcs)
    return Outcome.YIELD if yields else Outcome.RESUME


def handle_msr_read(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Answer as Xen does, or #GP."""
    number = vcpu.regs.gpr[1] & _LOW
    value = _READ.get(number)
    if number in SPECULATION and has_msr(vcpu, number):
        value = read_speculation(vcpu, number)
    if value is None:
        vcpu.note_unknown("msr", number, "read")
        return _refuse(vcpu)
    vcpu.regs.gpr[0], vcpu.regs.gpr[2] = value & _LOW, value >> 32
    return Outcome.SKIP


def handle_msr_write(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Let pass what does nothing; #GP for the rest."""
    low, number, high = (vcpu.regs.gpr[n] & _LOW for n in (0, 1, 2))
    known = number in SPECULATION and has_msr(vcpu, number)
    if number in _IGNORED or (known and write_speculation(vcpu, number, high << 32 | low)):
        return Outcome.SKIP
    vcpu.note_unknown("msr", number, "write")
    return _refuse(vcpu)


def _refuse(vcpu: "Vcpu") -> Outcome:
    inject_exception(vcpu, _GP, 0)
    return Outcome.RESUME


def handle_crash(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """End the run with the domain's crash record."""
    assert vcpu.domain is not None
    reason, address = vcpu.domain.engine.crash()
    what = CRASHES.get(reason, "its page tables are gone")
    vcpu.stop(StopReason.TRIPLE_FAULT, f"the domain crashed: {what} ({address:#x})")
    return Outcome.STOP


HANDLERS: "Final[dict[int, Callable[[Vcpu, Exit], Outcome]]]" = dict.fromkeys(
    R, exception.unhandled
) | {
    R.VMCALL: handle_hypercall,
    R.CPUID: cpuid.handle_cpuid,
    R.MSR_READ: handle_msr_read,
    R.MSR_WRITE: handle_msr_write,
    R.TRIPLE_FAULT: handle_crash,
    R.RDRAND: plain.handle_random,
    R.RDSEED: plain.handle_random,
    **engine_stop.HANDLERS,
}
