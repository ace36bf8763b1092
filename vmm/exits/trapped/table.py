"""Operation to handler, for a guest of the trap technique; real exits keep their own."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hwmodel.arch.exits import ExitReason as R
from hwmodel.arch.operations import Operation as Op
from hwmodel.vmx.exit import Exit
from vmm.exits.emulator.machine import GuestFault
from vmm.exits.shadowed import HANDLERS as SHADOWED
from vmm.exits.trapped import calls, control, flags, ports, reflect, registers, tables
from vmm.inject import inject_exception
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

Handler = Callable[["Vcpu", Exit], Outcome]


def _faulting(handler: Handler) -> Handler:
    """The instruction may fault: then the guest gets its exception, and RIP stays."""

    def handle(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
        try:
            return handler(vcpu, vmexit)
        except GuestFault as fault:
            inject_exception(vcpu, fault.vector, fault.error_code, fault.address or 0)
            return Outcome.RESUME

    return handle


_FAULTING: Final[dict[int, Handler]] = {
    Op.PUSHF: flags.handle_pushf,
    Op.POPF: flags.handle_popf,
    Op.LGDT: tables.handle_lgdt,
    Op.LIDT: tables.handle_lidt,
    Op.LLDT: tables.handle_lldt,
    Op.LTR: tables.handle_ltr,
    Op.SGDT: tables.handle_sgdt,
    Op.SIDT: tables.handle_sidt,
    Op.SLDT: tables.handle_sldt,
    Op.STR: tables.handle_str,
    Op.SMSW: tables.handle_smsw,
    Op.SYSRET: calls.handle_sysret,
    Op.SYSENTER: calls.handle_sysenter,
    Op.SYSEXIT: calls.handle_sysexit,
    R.CR_ACCESS: control.handle_cr,
    R.DR_ACCESS: control.handle_dr,
    R.MSR_WRITE: registers.handle_wrmsr,
    R.IO_INSTRUCTION: ports.handle_port,
    R.RDPMC: registers.refuse,
}

HANDLERS: Final[dict[int, Handler]] = {
    R.EXCEPTION_NMI: reflect.handle_reflected,
    R.INVLPG: SHADOWED[R.INVLPG],
    R.INVPCID: SHADOWED[R.INVPCID],
    R.MSR_READ: registers.handle_rdmsr,
    R.RDTSC: registers.handle_rdtsc,
    R.RDTSCP: registers.handle_rdtscp,
    Op.CLI: flags.handle_cli,
    Op.STI: flags.handle_sti,
    Op.IRET: flags.handle_iret,
    Op.CLAC: flags.handle_clac,
    Op.STAC: flags.handle_stac,
    Op.SWAPGS: registers.handle_swapgs,
    Op.SYSCALL: calls.handle_syscall,
    Op.INT: calls.handle_int,
    **{operation: _faulting(handler) for operation, handler in _FAULTING.items()},
}
"""What differs from a shadowed guest's under VT-x."""
