"""Agent expressions: what gdb 13 itself sends, and each operation by the manual."""

import pytest

from vmm.gdb.bytecode import BytecodeError, evaluate

MASK = (1 << 64) - 1


class About:
    def register(self, number: int) -> int:
        return {0: 42, 16: 0x1000}[number]

    def memory(self, address: int, size: int) -> bytes | None:
        data = bytes(range(0x80, 0x90))
        at = address - 0x1000
        return data[at : at + size] if 0 <= at <= len(data) - size else None


def value(*code: int) -> int:
    return evaluate(bytes(code), About())


def const(number: int) -> tuple[int, ...]:
    return (0x25, *(number & MASK).to_bytes(8, "big"))


@pytest.mark.parametrize(
    ("op", "a", "b", "wanted"),
    [
        (0x02, MASK, 2, 1), (0x03, 1, 2, MASK), (0x04, 1 << 63, 2, 0),
        (0x05, -7, 2, -3 & MASK), (0x06, -7, 2, (-7 & MASK) // 2),
        (0x07, -7, 2, -1 & MASK), (0x07, 7, -2, 1), (0x08, 7, 4, 3),
        (0x09, 1, 63, 1 << 63), (0x09, 1, 64, 0), (0x0A, -8, 1, -4 & MASK), (0x0A, -8, 99, MASK),
        (0x0B, -8, 60, 15), (0x0F, 12, 10, 8), (0x10, 12, 10, 14), (0x11, 12, 10, 6),
        (0x13, 5, 5, 1), (0x13, 5, 6, 0), (0x14, -1, 0, 1), (0x15, -1, 0, 0), (0x15, 0, 1, 1),
    ],
)  # fmt: skip
def test_two_operands(op: int, a: int, b: int, wanted: int) -> None:
    assert value(*const(a), *const(b), op, 0x27) == wanted


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ((0x22, 5, 0x0E, 0x27), 0), ((0x22, 0, 0x0E, 0x27), 1), ((0x22, 0, 0x12, 0x27), MASK),
        ((0x22, 0x80, 0x16, 8, 0x27), -128 & MASK), ((*const(-1), 0x2A, 16, 0x27), 0xFFFF),
        ((0x23, 1, 2, 0x27), 0x102), ((0x24, 1, 2, 3, 4, 0x27), 0x1020304),
        ((0x26, 0, 0, 0x27), 42), ((0x26, 0, 16, 0x17, 0x27), 0x80),
        ((0x26, 0, 16, 0x18, 0x27), 0x8180), ((0x26, 0, 16, 0x19, 0x27), 0x83828180),
        ((0x26, 0, 16, 0x1A, 0x27), 0x8786858483828180),
        ((0x22, 1, 0x22, 2, 0x2B, 0x03, 0x27), 1), ((0x22, 3, 0x28, 0x04, 0x27), 9),
        ((0x22, 1, 0x22, 2, 0x29, 0x27), 1), ((0x22, 7, 0x22, 8, 0x32, 1, 0x27), 7),
        ((0x22, 1, 0x22, 2, 0x22, 3, 0x33, 0x29, 0x27), 1),
        ((0x22, 1, 0x20, 0, 7, 0x22, 5, 0x22, 9, 0x27), 9),
        ((0x22, 0, 0x20, 0, 8, 0x22, 5, 0x27, 0x22, 9, 0x27), 5),
        ((0x21, 0, 5, 0x22, 1, 0x22, 2, 0x27), 2),
    ],
)  # fmt: skip
def test_the_others(code: tuple[int, ...], wanted: int) -> None:
    assert value(*code) == wanted


@pytest.mark.parametrize(
    "code",
    [
        b"", b"\x27", b"\x02\x27", b"\x22", b"\x26\x00\x63\x27", b"\x22\x00\x17\x27", b"\xff",
        b"\x0c\x27", b"\x21\x00\x00", b"\x22\x01\x22\x00\x05\x27", b"\x22\x01\x16\x00\x27",
        b"\x22\x01\x16\xff\x27", b"\x22\x01" * 200 + b"\x27", b"\x22\x01\x32\x09\x27",
        b"\x21\xff\xff", b"\x22\x01\x28" + b"\x21\x00\x02",
    ],
)  # fmt: skip
def test_what_has_no_value_says_so(code: bytes) -> None:
    with pytest.raises(BytecodeError):
        evaluate(code, About())
