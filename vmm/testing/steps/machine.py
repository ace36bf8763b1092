"""A recorded step on ring1: real mode, RAM wherever the step has it, no devices."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from hwmodel.arch.vmcs import Field
from vmm.testing.environment import Environment, Mode
from vmm.testing.guest import Guest
from vmm.testing.steps.step import Step

_LONG: Final = {
    "ax": "rax", "bx": "rbx", "cx": "rcx", "dx": "rdx", "sp": "rsp", "bp": "rbp", "si": "rsi",
    "di": "rdi",
}  # fmt: skip
_SEGMENTS: Final = ("cs", "ss", "ds", "es")
ARITHMETIC: Final = 0xFD5
"""The flags of real mode that both processors have, IOPL and NT left out."""
_TOLD: Final = 16
"""Vectors that are told apart: those of exceptions in real mode."""
_REAL: Final = Environment(Mode.REAL16)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a step left: all registers, and the bytes at the addresses that the suite names."""

    registers: Mapping[str, int]
    memory: Mapping[int, int]
    vector: int | None
    """The exception in whose handler ring1 stands, as far as its vector tells."""


class StepMachine:
    """A guest in real mode with 2 MiB."""

    def __init__(self, **options: Any) -> None:
        """Make it; `options` are those of `ring1 run`."""
        self.guest: Final = Guest(_REAL, **{"memory": "2M"} | options)
        self.guest.board.ports.disconnect()  # the recorded processors had no devices either

    def run(self, step: Step) -> Ended:
        """Run a step."""
        guest = self.guest
        guest.reset(_REAL)
        for at, data in _runs(step.memory):
            guest.memory.write(at, data)
        for name, long in _LONG.items():
            setattr(guest.regs, long, step.before[name])
        guest.regs.rip = step.before["ip"]
        guest.regs.rflags = step.before["flags"] & ARITHMETIC | 2
        vmcs = guest.current.vmcs
        for name in _SEGMENTS:
            selector = step.before[name]
            vmcs[Field[f"GUEST_{name.upper()}_SELECTOR"]] = selector
            vmcs[Field[f"GUEST_{name.upper()}_BASE"]] = selector << 4
        vectors = self.guest.memory.read(0, _TOLD * 4)
        guest.step()
        registers = self._registers()
        return Ended(registers, self._memory(step), _handler_of(vectors, registers))

    def _registers(self) -> dict[str, int]:
        regs, vmcs = self.guest.regs, self.guest.current.vmcs
        found = {name: getattr(regs, long) & 0xFFFF for name, long in _LONG.items()}
        found |= {name: vmcs[Field[f"GUEST_{name.upper()}_SELECTOR"]] for name in _SEGMENTS}
        return found | {"ip": regs.rip & 0xFFFF, "flags": regs.rflags & 0xFFFF}

    def _memory(self, step: Step) -> dict[int, int]:
        read = self.guest.memory.read
        return {at: read(at, 1)[0] for at in (*step.memory, *step.memory_after)}

    def close(self) -> None:
        """Free the guest."""
        self.guest.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _handler_of(vectors: bytes, registers: Mapping[str, int]) -> int | None:
    """Return the vector whose handler the registers are at, by the table in memory."""
    place = registers["ip"].to_bytes(2, "little") + registers["cs"].to_bytes(2, "little")
    return next((n for n in range(_TOLD) if vectors[4 * n : 4 * n + 4] == place), None)


def _runs(memory: Mapping[int, int]) -> list[tuple[int, bytes]]:
    """Neighbouring bytes together, so that each run is one write."""
    found: list[tuple[int, bytearray]] = []
    for at in sorted(memory):
        if found and found[-1][0] + len(found[-1][1]) == at:
            found[-1][1].append(memory[at])
        else:
            found.append((at, bytearray([memory[at]])))
    return [(at, bytes(data)) for at, data in found]
