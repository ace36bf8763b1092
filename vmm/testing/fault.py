"""What ended a run in a stub, read from the frame that its delivery pushed."""

from dataclasses import dataclass
from typing import Final

from vmm.memory.guest import GuestMemory
from vmm.testing import layout
from vmm.testing.environment import Environment, Mode
from vmm.vcpu import Vcpu

WITH_ERROR: Final = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29, 30})
_PF: Final = 14
NAMES: Final = {
    0: "#DE", 1: "#DB", 2: "NMI", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF",
    10: "#TS", 11: "#NP", 12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC",
    19: "#XM", 20: "#VE", 21: "#CP",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """An event that was delivered: vector, error code (None: it has none), CR2 of a page fault,
    and the interrupted program's registers.
    """

    vector: int
    error: int | None
    address: int | None
    rip: int
    cs: int
    rflags: int
    rsp: int | None
    ss: int | None

    def __str__(self) -> str:
        name = NAMES.get(self.vector, f"vector {self.vector:#x}")
        error = "" if self.error is None else f"({self.error:#x})"
        where = "" if self.address is None else f" for {self.address:#x}"
        return f"{name}{error}{where} at {self.rip:#x}"


def vector_of(vcpu: Vcpu) -> int | None:
    """Return the vector in whose stub the vCPU stands, None if in none."""
    offset = vcpu.linear_rip() - layout.STUBS
    return offset // layout.STUB_BYTES if 0 <= offset < 256 * layout.STUB_BYTES else None


def frame_of(vcpu: Vcpu, environment: Environment, memory: GuestMemory) -> Fault | None:
    """Read the frame below the stack pointer of a vCPU that stands in a stub."""
    vector = vector_of(vcpu)
    if vector is None:
        return None
    size = {True: 8, False: 4}[environment.mode.is_long]
    size = 2 if environment.mode is Mode.REAL16 else size
    changes_stack = environment.mode.is_long or environment.ring == 3
    has_error = vector in WITH_ERROR and environment.mode is not Mode.REAL16
    if changes_stack:  # INT n pushes none, whatever its vector
        has_error = layout.FAULT_STACK - vcpu.regs.rsp == 6 * size
    raw = memory.read(_stack(vcpu, environment), size * 6)
    words = [int.from_bytes(raw[n : n + size], "little") for n in range(0, len(raw), size)]
    error = words.pop(0) if has_error else None
    return Fault(
        vector, error, vcpu.regs.cr2 if vector == _PF else None,
        words[0], words[1] & 0xFFFF, words[2],
        words[3] if changes_stack else None, words[4] & 0xFFFF if changes_stack else None,
    )  # fmt: skip


def fault_of(vcpu: Vcpu, environment: Environment, memory: GuestMemory) -> Fault | None:
    """Return what ended the run, None if that was the program's own end."""
    found = frame_of(vcpu, environment, memory)
    return None if found is None or found.vector == layout.END else found


def _stack(vcpu: Vcpu, environment: Environment) -> int:
    """Where the frame lies, linear and physical: handlers' stacks are mapped one to one."""
    pointer: int = vcpu.regs.rsp
    if environment.mode is Mode.REAL16:
        return pointer & 0xFFFF
    if environment.mode is Mode.PROT16 and environment.ring == 0:
        return layout.DATA + (pointer & 0xFFFF)
    return pointer
