"""What the emulator does not know (x87, SGDT, FXSAVE, ...) runs by itself, on a stand-in page.

For one instruction a private page stands where the device is. The bytes of the memory operand are
read from the device before, if the instruction reads them, and written to it afterwards, if it
wrote them. An operand that began on the page before may reach less far than is known here: then
more is read than the instruction asks for, and what it changed is written.
"""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.paging import InvEpt
from hwmodel.timing.clock import FOREVER
from hwmodel.vmx.exit import Exit
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_PAGE: Final = 4096
_BOUNCE_PAGE: Final = 1  # of the hypervisor's private pages
# Operands whose size capstone does not tell: bytes stored or loaded.
_SIZES: Final = {"sgdt": 10, "sidt": 10, "lgdt": 10, "lidt": 10, "fxsave": 512, "fxrstor": 512}


def try_bounce(vcpu: "Vcpu", vmexit: Exit) -> Outcome | None:
    """Carry out the instruction at RIP, which exited for a device; None if that cannot be done."""
    operand = _operand(vcpu.vmcs.exiting_code(), vcpu.code_bits())
    if operand is None or operand[0] == 0:
        return None
    size, reads, writes = operand
    gpa, offset = vmexit.guest_physical, vmexit.guest_physical % _PAGE
    size = min(size, _PAGE - offset)
    if offset == 0:
        reads, writes = True, False
    at = vcpu.memory.private_page(_BOUNCE_PAGE)
    before = _from_device(vcpu, gpa, size) if reads else bytes(size)
    page = vcpu.memory.ram.view[at : at + _PAGE]
    kept = bytes(page)
    page[:] = bytes(_PAGE)
    page[offset : offset + size] = before
    outcome = _step(vcpu, gpa - offset, at)
    if outcome is None:
        return None
    after = bytes(page[offset : offset + size])
    page[:] = kept
    if writes or after != before:
        _to_device(vcpu, gpa, after)
    return outcome


def _step(vcpu: "Vcpu", gpa: int, stand_in: int) -> Outcome | None:
    """Run one instruction; None if it needs a second device page, which nothing stands in for."""
    ept, rip = vcpu.memory.ept, vcpu.regs.rip
    kept = ept.replace_page(gpa, ept.page(stand_in))
    vcpu.pcpu.invept(InvEpt.SINGLE_CONTEXT, ept.pointer())  # the APIC-access page may be cached
    with vcpu.pcpu.pace.one_instruction(vcpu.vmcs.native.retire):
        vmexit = vcpu.pcpu.enter(vcpu.vmcs, FOREVER)
    if vcpu.shadow is not None:
        vcpu.shadow.wrote_unseen()
    ept.replace_page(gpa, kept)
    vcpu.pcpu.invept(InvEpt.SINGLE_CONTEXT, ept.pointer())
    if vmexit.reason == ExitReason.EPT_VIOLATION and vcpu.regs.rip == rip:
        return None
    return vcpu.after_step(vmexit)


def _operand(code: bytes, bits: int) -> tuple[int, bool, bool] | None:
    """Return the memory operand's size in bytes, and whether it is read and written."""
    import capstone  # few guests get here, and it takes a tenth of a start's time

    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    decoder = capstone.Cs(capstone.CS_ARCH_X86, modes[bits])
    decoder.detail = True
    for insn in decoder.disasm(code, 0, 1):
        for operand in insn.operands:
            if operand.type == capstone.x86.X86_OP_MEM:
                size = _SIZES.get(insn.mnemonic.removesuffix("64"), operand.size)
                writes = bool(operand.access & capstone.CS_AC_WRITE)
                return size, bool(operand.access & capstone.CS_AC_READ) or not writes, writes
    return None


def _from_device(vcpu: "Vcpu", gpa: int, size: int) -> bytes:
    return b"".join(
        vcpu.board.emulated.read(vcpu.index, at, width).to_bytes(width, "little")
        for at, width in pieces(gpa, size)
    )


def _to_device(vcpu: "Vcpu", gpa: int, data: bytes) -> None:
    for at, width in pieces(gpa, len(data)):
        value = int.from_bytes(data[at - gpa : at - gpa + width], "little")
        vcpu.board.emulated.write(vcpu.index, at, width, value)


def pieces(gpa: int, size: int) -> list[tuple[int, int]]:
    """Split a device access into the naturally aligned ones that a bus carries."""
    if size in (1, 2, 4, 8) and gpa % size == 0:
        return [(gpa, size)]
    found = []
    while size:
        width = 8
        while width > size or gpa % width:
            width //= 2
        found.append((gpa, width))
        gpa, size = gpa + width, size - width
    return found
