"""Apply the one instruction at RIP to a machine: what touched MMIO, or INS and OUTS.

The hot way, a MOV to or from a device register, is one dictionary look-up, one compiled closure
and one bus access. Decoding and compiling happen once for each code size and byte string.
"""

from __future__ import annotations

from vmm.exits.emulator.machine import GeneralRegisters, GuestFault, Machine
from vmm.exits.emulator.outcome import Emulated, Plan, Status

MAX_LENGTH = 15
MAX_ITERATIONS = 4096
CACHE_ENTRIES = 8192

_plans: dict[int, dict[bytes, Plan]] = {16: {}, 32: {}, 64: {}}


def emulate(machine: Machine, max_iterations: int = MAX_ITERATIONS) -> Emulated:
    """Execute exactly one instruction; see `Status` for the four ways it ends.

    A REP instruction stops after `max_iterations` (at least 1) with DONE_PARTIAL, so that
    interrupts can come between. Guest misbehaviour is a FAULT outcome, never an exception.
    """
    try:
        code = machine.fetch(MAX_LENGTH)
        plan = _plans[machine.bits].get(code)
        if plan is None:
            plan = _compile(code, machine.bits)
        return plan(machine, max_iterations)
    except GuestFault as fault:
        return Emulated(Status.FAULT, fault.vector, fault.error_code, fault.address)


def _compile(code: bytes, bits: int) -> Plan:
    from vmm.exits.emulator.plan import compile_plan  # with capstone: a third of a start's time

    plans = _plans[bits]
    if len(plans) >= CACHE_ENTRIES:
        plans.clear()  # a memo of pure results: losing it costs time only
    plans[code] = plan = compile_plan(code, bits)
    return plan


__all__ = ["Emulated", "GeneralRegisters", "GuestFault", "Machine", "Status", "emulate"]
