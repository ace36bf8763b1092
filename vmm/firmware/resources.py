"""Resource descriptors: the bytes of a _CRS (ACPI 6.4, "Resource Data Types for ACPI").

Ranges are (first, first after).
"""

from enum import IntEnum

from vmm.firmware.aml import buffer

_IO, _IRQ, _END = 0x47, 0x22, 0x79  # small items: type << 3 | length
_MEMORY32, _DWORD, _WORD, _INTERRUPT, _QWORD = 0x86, 0x87, 0x88, 0x89, 0x8A

_SIZES = {_WORD: 2, _DWORD: 4, _QWORD: 8}
_FIXED = 0x0C  # general flags: both ends fixed, positively decoded
_PRODUCER = 0x00
_READ_WRITE, _CACHEABLE, _ENTIRE = 0x01, 0x02, 0x03


class _Kind(IntEnum):
    """What an address space descriptor tells of."""

    MEMORY = 0
    IO = 1
    BUS = 2


def resources(*descriptors: bytes) -> bytes:
    """ResourceTemplate { descriptors }."""
    return buffer(b"".join(descriptors) + bytes([_END, 0]))


def ports(base: int, count: int) -> bytes:
    """IO(Decode16, base, base, 1, count)."""
    return bytes([_IO, 1]) + base.to_bytes(2, "little") * 2 + bytes([1, count])


def irq(line: int) -> bytes:
    """IRQNoFlags { line }: an ISA interrupt, edge-triggered."""
    return bytes([_IRQ]) + (1 << line).to_bytes(2, "little")


def interrupt(gsi: int) -> bytes:
    """Interrupt(ResourceConsumer, Level, ActiveHigh, Exclusive) { gsi }."""
    return _large(_INTERRUPT, bytes([0x01, 1]) + gsi.to_bytes(4, "little"))


def memory32(base: int, size: int) -> bytes:
    """Memory32Fixed(ReadWrite, base, size)."""
    return _large(_MEMORY32, b"\x01" + base.to_bytes(4, "little") + size.to_bytes(4, "little"))


def bus_window(first: int, last: int) -> bytes:
    """WordBusNumber: the bus numbers below a bridge."""
    return _address(_WORD, _Kind.BUS, 0, (first, last + 1))


def port_window(span: tuple[int, int]) -> bytes:
    """WordIO: ports that a bridge passes on."""
    return _address(_WORD, _Kind.IO, _ENTIRE, span)


def memory_window(span: tuple[int, int], *, cacheable: bool = False) -> bytes:
    """DWordMemory or QWordMemory: addresses that a bridge passes on."""
    flags = _READ_WRITE | (_CACHEABLE if cacheable else 0)
    return _address(_DWORD if span[1] <= 1 << 32 else _QWORD, _Kind.MEMORY, flags, span)


def _address(tag: int, kind: _Kind, flags: int, span: tuple[int, int]) -> bytes:
    """Granularity, first, last, translation offset, length."""
    first, end = span
    numbers = (0, first, end - 1, 0, end - first)
    size = _SIZES[tag]
    body = bytes([kind, _FIXED | _PRODUCER, flags])
    return _large(tag, body + b"".join(number.to_bytes(size, "little") for number in numbers))


def _large(tag: int, body: bytes) -> bytes:
    return bytes([tag]) + len(body).to_bytes(2, "little") + body
