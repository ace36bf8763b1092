"""A PV guest that makes the hypercalls of a list, one after the other, and powers off.

The list lies in its memory: number, six arguments, room for the result, eight words each.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import keystone

from hwmodel.cpu.xen import XenEngine
from vmm import VM, Result
from vmm.pv.xen.domain import XenPv

BASE: Final = 0xFFFF_FFFF_8000_0000
CODE, LIST, DATA, END = 0x10_0000, 0x20_0000, 0x60_0000, 0x80_0000
MOST: Final = (DATA - LIST) // 64
PAGE: Final = 4096
_SOURCE: Final = """
    lea r13, [rip + {list}]
    mov r14, {count}
again:
    test r14, r14
    jz over
    mov rax, [r13]
    mov rdi, [r13 + 8]
    mov rsi, [r13 + 16]
    mov rdx, [r13 + 24]
    mov r10, [r13 + 32]
    mov r8, [r13 + 40]
    mov r9, [r13 + 48]
    syscall
    mov [r13 + 56], rax
    add r13, 64
    dec r14
    jmp again
over:
    mov eax, 29
    mov edi, 2
    movabs rsi, {reason}
    syscall
    ud2
"""


def _note(kind: int, value: int) -> bytes:
    return struct.pack("<III", 4, 8, kind) + b"Xen\0" + value.to_bytes(8, "little")


def image(code: bytes) -> bytes:
    """Return an ELF file with Xen's notes whose memory ends at END."""
    notes = b"".join(_note(*n) for n in ((1, BASE + CODE), (3, BASE), (16, 1)))
    at = 64 + 2 * 56
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, BASE + CODE, 64, 0, 0, 64, 56, 2, 64,
        0, 0,
    )  # fmt: skip
    load = struct.pack("<IIQQQQQQ", 1, 7, at, BASE + CODE, CODE, len(code), END - CODE, PAGE)
    note = struct.pack("<IIQQQQQQ", 4, 4, at + len(code), 0, 0, len(notes), len(notes), 4)
    return header + load + note + code + notes


@dataclass(frozen=True)
class Call:
    """A hypercall: number and up to six arguments."""

    number: int
    arguments: tuple[int, ...] = ()

    def words(self) -> bytes:
        padded = (*self.arguments, *[0] * (6 - len(self.arguments)))
        low = [n & (1 << 64) - 1 for n in (self.number, *padded)]
        return struct.pack("<8Q", *low, 0x5EED_5EED_5EED_5EED)


def linear(offset: int) -> int:
    """The linear address of a byte of the data area."""
    return BASE + DATA + offset


class ListGuest:
    """A VM whose guest makes the calls of the list at LIST: a context manager."""

    vm: VM

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.vm.close()

    def make(self, calls: Sequence[bytes]) -> tuple[list[int], Result]:
        """Make calls of eight words each; return what they returned, signed."""
        self.vm.memory.write(LIST, b"".join(calls))
        result = self.vm.run()
        data = self.vm.memory.read(LIST, 64 * len(calls))
        return [struct.unpack_from("<q", data, 64 * n + 56)[0] for n in range(len(calls))], result


class PvGuest(ListGuest):
    """A VM whose guest is a PV domain."""

    domain: XenPv
    engine: XenEngine


class CallGuest(PvGuest):
    """The PV guest."""

    def __init__(self, count: int, **options: Any) -> None:
        source = _SOURCE.format(
            list=LIST - CODE - 7, count=count, reason=hex(linear(END - DATA - 8))
        )
        engine = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
        code = bytes(engine.asm(source)[0])
        given: dict[str, Any] = {"memory": "16M", "max_instructions": 200_000_000, **options}
        self.vm = VM(image(code), technique="pv", **given)
        assert self.vm.domain is not None
        self.domain = self.vm.domain
        self.engine = self.domain.engine

    def put(self, offset: int, data: bytes) -> int:
        """Place data; return its linear address."""
        self.vm.memory.write(DATA + offset, data)
        return linear(offset)

    def get(self, offset: int, size: int) -> bytes:
        return self.vm.memory.read(DATA + offset, size)

    def mfn(self, offset: int) -> int:
        """The machine frame of a page of the data area."""
        at = self.vm.memory.hpa(DATA + offset)
        assert at is not None
        return at // PAGE

    def run(self, calls: Sequence[Call]) -> tuple[list[int], Result]:
        """Make the calls; return what they returned, signed."""
        return self.make([call.words() for call in calls])


def results(calls: Sequence[Call]) -> list[int]:
    """Make calls that need no data, in a guest of their own."""
    with CallGuest(len(calls)) as guest:
        found, result = guest.run(calls)
        assert (result.status, result.reason) == (0, "poweroff"), result.message
        assert guest.engine.audit()[0] == 0
    return found
