"""Port I/O: IN and OUT at once, INS and OUTS through the emulator."""

from typing import TYPE_CHECKING

from hwmodel.timing.ledger import Heading
from hwmodel.vmx.exit import Exit
from vmm.devices.isa import SLOW_PORTS
from vmm.exits.ept import emulate_instruction
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_IN, _STRING = 1 << 3, 1 << 4


def handle_io(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Decode the qualification ("Exit Qualification for I/O Instructions") and ask the bus."""
    qualification = vmexit.qualification
    shortcut = vcpu.board.ports.shortcuts.get(qualification)
    if shortcut is not None:
        regs = vcpu.regs
        rax = regs.rax
        value = shortcut(rax & 0xFF)
        if value >= 0:
            if qualification & _IN:
                regs.rax = rax & ~0xFF | value
            return Outcome.STOP if vcpu.is_stopped() else Outcome.SKIP
    if qualification & _STRING:
        return emulate_instruction(vcpu, vmexit)
    size, port = (qualification & 7) + 1, qualification >> 16
    ports = vcpu.board.ports
    if port in SLOW_PORTS and not vcpu.pcpu.is_priced:  # else the exit takes as long
        vcpu.pcpu.book(vcpu.vmcs, Heading.DEVICE, vcpu.board.isa.access(), vmexit.reason)
    if qualification & _IN:
        vcpu.set_register(0, ports.read(port, size), size)
    else:
        ports.write(port, size, vcpu.regs.rax & (1 << size * 8) - 1)
    if ports.stirred:
        ports.stirred, vcpu.look_for_events = False, True
    return Outcome.STOP if vcpu.is_stopped() else Outcome.SKIP
