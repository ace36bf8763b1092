"""IN, OUT, INS, OUTS: with IOPL 0 the processor refuses them all; here are the guest's rules."""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.vmcs import Field
from hwmodel.vmx.exit import Exit
from vmm.exits.emulator.machine import GuestFault
from vmm.exits.io import handle_io
from vmm.exits.trapped.operand import GP, RFLAGS, VM, load_system
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_TSS, _MAP_BASE = 9, 102
_IS_TSS: Final = 0xD  # type without the busy bit, and S: 9 or 11


def handle_port(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Ask the bus, if the guest's IOPL or its TSS allows it."""
    flags = vcpu.vmcs.fields[RFLAGS]
    if vcpu.vmcs.native.cpl > flags >> 12 & 3 or flags & VM:
        _ask_bitmap(vcpu, vmexit)
    return handle_io(vcpu, vmexit)


def _ask_bitmap(vcpu: "Vcpu", vmexit: Exit) -> None:
    """Manual, "I/O Permission Bit Map". Raises GuestFault."""
    size, port = (vmexit.qualification & 7) + 1, vmexit.qualification >> 16
    vmcs = vcpu.vmcs
    base, limit = vmcs[Field.GUEST_TR_BASE], vmcs[Field.GUEST_TR_LIMIT]
    if vmcs[Field.GUEST_TR_AR_BYTES] & _IS_TSS != _TSS or limit < _MAP_BASE + 1:
        raise GuestFault(GP, 0)
    at = load_system(vcpu, base + _MAP_BASE, 2) + port // 8
    if at + 1 > limit or load_system(vcpu, base + at, 2) >> port % 8 & (1 << size) - 1:
        raise GuestFault(GP, 0)
