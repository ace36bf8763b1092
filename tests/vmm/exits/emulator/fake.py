"""A machine of bytes for the emulator, laid out like the memory of `native.c`."""

from __future__ import annotations

from dataclasses import dataclass, field

from hwmodel.arch.addr import is_canonical
from vmm.exits.emulate import GuestFault

CODE, DATA, WRITABLE, SIZE = 0x1F000000, 0x20000000, 0x2000, 0x3000
PAGE = 0x1000
PAGE_FAULT = 14
PRESENT, WRITE, USER = 1, 2, 4


class Registers:
    """Sixteen 64-bit registers, RIP and RFLAGS; refuses values that a register cannot hold."""

    def __init__(self, values: list[int], rip: int, rflags: int) -> None:
        self._values = values
        self._rip, self._rflags = rip, rflags

    def __getitem__(self, number: int) -> int:
        return self._values[number]

    def __setitem__(self, number: int, value: int) -> None:
        assert 0 <= value < 1 << 64, f"register {number} = {value:#x}"
        self._values[number] = value

    @property
    def rip(self) -> int:
        return self._rip

    @rip.setter
    def rip(self, value: int) -> None:
        assert 0 <= value < 1 << 64, f"rip = {value:#x}"
        self._rip = value

    @property
    def rflags(self) -> int:
        return self._rflags

    @rflags.setter
    def rflags(self, value: int) -> None:
        assert 0 <= value < 1 << 22, f"rflags = {value:#x}"
        self._rflags = value

    def snapshot(self) -> tuple[tuple[int, ...], int, int]:
        return tuple(self._values), self.rip, self.rflags


@dataclass
class Fake:
    """`memory` at linear DATA: two writable pages, one read-only; nothing else is mapped."""

    bits: int
    code: bytes
    regs: Registers
    memory: bytearray = field(default_factory=lambda: bytearray(SIZE))
    vectors: list[int] = field(default_factory=lambda: [0] * 16)
    bases: list[int] = field(default_factory=lambda: [0] * 6)
    selectors: list[int] = field(default_factory=lambda: [0] * 6)
    stack_bits: int = 64
    accesses: list[tuple[object, ...]] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)

    def xmm(self, number: int) -> int:
        return self.vectors[number]

    def set_xmm(self, number: int, value: int) -> None:
        assert 0 <= value < 1 << 128
        self.vectors[number] = value

    def segment_base(self, segment: int) -> int:
        return self.bases[segment]

    def segment_selector(self, segment: int) -> int:
        return self.selectors[segment]

    def is_canonical(self, linear: int) -> bool:
        return is_canonical(linear)

    def fetch(self, count: int) -> bytes:
        return self.code[:count]

    def _check(self, linear: int, size: int, access: int) -> None:
        assert 0 <= linear < 1 << 64, f"address {linear:#x}"
        last = (linear + size - 1) % (1 << 64) & ~(PAGE - 1)
        for address in (linear, last) if last != linear & ~(PAGE - 1) else (linear,):
            if DATA <= address < DATA + (WRITABLE if access & WRITE else SIZE):
                continue
            present = PRESENT if DATA <= address < DATA + SIZE else 0
            raise GuestFault(PAGE_FAULT, present | access | USER, address)

    def read(self, linear: int, size: int) -> int:
        self._check(linear, size, 0)
        self.accesses.append(("read", linear, size))
        return int.from_bytes(self.memory[linear - DATA : linear - DATA + size], "little")

    def write(self, linear: int, size: int, value: int) -> None:
        assert 0 <= value < 1 << 8 * size, f"{value:#x} is wider than {size} bytes"
        self._check(linear, size, WRITE)
        self.accesses.append(("write", linear, size, value))
        self.memory[linear - DATA : linear - DATA + size] = value.to_bytes(size, "little")

    def check_write(self, linear: int, size: int) -> None:
        self._check(linear, size, WRITE)

    def port_in(self, port: int, size: int) -> int:
        self.accesses.append(("in", port, size))
        return self.inputs.pop(0)

    def port_out(self, port: int, size: int, value: int) -> None:
        self.accesses.append(("out", port, size, value))


def machine(
    code: str | bytes, bits: int = 64, rflags: int = 2, rip: int = CODE, **regs: int
) -> Fake:
    """Build a machine from bytes (or hex) and registers by 64-bit name."""
    names = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"]
    names += [f"r{n}" for n in range(8, 16)]
    assert set(regs) <= set(names)
    raw = bytes.fromhex(code) if isinstance(code, str) else code
    registers = Registers([regs.get(name, 0) for name in names], rip, rflags)
    return Fake(bits, raw, registers, stack_bits=bits)
