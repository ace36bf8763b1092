"""Who only waits: virtual CPUs in a short loop that looks at a word of memory, and who changes it.

The guest is let run on from a snapshot, looked at again and again, and put back.
"""

from dataclasses import dataclass
from typing import Final

import capstone

from hwmodel.arch.vmcs import Field
from hwmodel.mem.fault import Fault
from hwmodel.vmx.state import GPR_NAMES
from vmm.vcpu import Vcpu
from vmm.vm import VM

LOOP_BYTES: Final = 96  # a loop that waits is short
_LOOKS: Final = 24
_STEP: Final = 30_011  # cycles between looks: prime, so that no loop hides
_FEWEST: Final = 4
_CODE_MODES: Final = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
_SEGMENTS: Final = {"fs": Field.GUEST_FS_BASE, "gs": Field.GUEST_GS_BASE}


@dataclass(frozen=True, slots=True)
class Spin:
    """A CPU that waits in `first` .. `last` for memory at `address` to be another than `value`."""

    first: int
    last: int
    since: int | None
    address: int | None
    value: int
    holder: int | None
    """The vCPU that changed the word first, None if none did."""
    release: str

    @property
    def text(self) -> str:
        """What it waits for, in words."""
        loop = f"the loop {self.first:#x} to {self.last:#x}"
        if self.address is None:
            return f"something that {loop} looks at"
        return f"memory at {self.address:#x} to change from {self.value:#x}, in {loop}"


@dataclass(frozen=True, slots=True)
class _Word:
    """A word that a loop reads, by its guest-physical address."""

    linear: int
    gpa: int
    size: int


def find_spins(vm: VM, ahead: int) -> dict[int, Spin]:
    """Let the guest run for at most `ahead` cycles, and put it back; the CPUs that only wait."""
    before = vm.snapshot()
    seen = _look_around(vm, ahead)
    vm.restore(before)
    found = {}
    for vcpu in vm.vcpus:
        rips = seen.get(vcpu.index, [])
        if len(rips) < _FEWEST or max(rips) - min(rips) > LOOP_BYTES:
            continue
        first, last = min(rips), max(rips)
        word = _word_of(vcpu, first, last)
        value = 0 if word is None else _read(vm, word)
        holder, release = (None, "") if word is None else _who_changes(vm, word, ahead)
        vm.restore(before)
        linear = None if word is None else word.linear
        found[vcpu.index] = Spin(first, last, None, linear, value, holder, release)
    return found


def _look_around(vm: VM, ahead: int) -> dict[int, list[int]]:
    """Where each CPU is, again and again; one that slept meanwhile does not spin."""
    seen: dict[int, list[int]] = {}
    ends = vm.clock.now + ahead
    while vm.clock.now < ends and not vm.is_stopped():
        if vm.run_until(min(ends, vm.clock.now + _STEP)) is not None:
            return {}
        rips = seen.setdefault(vm.current.index, [])
        rips.append(vm.current.linear_rip())
        if all(len(known) >= _LOOKS for known in seen.values()) and len(seen) == len(vm.vcpus):
            break
    return seen


def _word_of(vcpu: Vcpu, first: int, last: int) -> _Word | None:
    """The first word of memory that an instruction of the loop reads."""
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, _CODE_MODES[vcpu.code_bits()])
    disassembler.detail = True
    code = _peek(vcpu, first, last - first + 16)
    for insn in disassembler.disasm(code, first):
        if insn.address > last:
            break
        if insn.mnemonic == "lea" or insn.group(capstone.CS_GRP_CALL):
            continue
        for operand in insn.operands:
            if operand.type == capstone.x86.X86_OP_MEM:
                word = _place(vcpu, insn, operand)
                if word is not None:
                    return word
    return None


def _place(vcpu: Vcpu, insn: "capstone.CsInsn", operand: "capstone.x86.X86Op") -> _Word | None:
    memory = operand.mem
    linear = memory.disp + _register(vcpu, insn, memory.base)
    linear += _register(vcpu, insn, memory.index) * memory.scale
    segment = _SEGMENTS.get(insn.reg_name(memory.segment) or "")
    linear += vcpu.vmcs[segment] if segment else 0
    linear &= (1 << 64) - 1 if vcpu.code_bits() == 64 else 0xFFFF_FFFF
    gpa = vcpu.pcpu.translate(vcpu.vmcs, linear)
    return None if isinstance(gpa, Fault) else _Word(linear, gpa, min(operand.size, 8))


def _register(vcpu: Vcpu, insn: "capstone.CsInsn", number: int) -> int:
    """A register of an address, by the widest name that contains it."""
    name = insn.reg_name(number) if number else None
    if name is None:
        return 0
    if name in ("rip", "eip"):
        return int(insn.address + insn.size)
    wide = name if name in GPR_NAMES else f"r{name[1:]}" if name[0] == "e" else name.rstrip("d")
    value = vcpu.regs[GPR_NAMES.index(wide)] if wide in GPR_NAMES else 0
    return value if name in GPR_NAMES else value & 0xFFFF_FFFF


def _peek(vcpu: Vcpu, linear: int, size: int) -> bytes:
    """Code without side effects; up to the first page that is not there."""
    data = b""
    while len(data) < size:
        at = linear + len(data)
        gpa = vcpu.pcpu.translate(vcpu.vmcs, at)
        if isinstance(gpa, Fault):
            break
        data += vcpu.memory.read(gpa, min(size - len(data), 4096 - at % 4096))
    return data


def _read(vm: VM, word: _Word) -> int:
    return int.from_bytes(vm.memory.read(word.gpa, word.size), "little")


def _who_changes(vm: VM, word: _Word, ahead: int) -> tuple[int | None, str]:
    """Run on until the word is another one: whose turn it then is has changed it."""
    value, ends = _read(vm, word), vm.clock.now + 4 * ahead
    while vm.clock.now < ends and vm.run_until(min(ends, vm.clock.now + 4096)) is None:
        now = _read(vm, word)
        if now != value:
            holder = vm.current.index
            return holder, f"vCPU {holder} writes {now:#x} there, before cycle {vm.clock.now}"
    return None, ""
