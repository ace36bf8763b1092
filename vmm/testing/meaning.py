"""Does the code mean what the line says? Keystone drops what does not fit, without a word.

`mov al, 0x1ff` becomes `mov al, 0xff`, `push 0x123456789` a push of 16 bits, `mov rax, [rbx` a load
from address 0. So each line with numbers in it is read back, by capstone, and they are compared.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

_NUMBER: Final = re.compile(r"[-+]?\s*(?:0x[0-9a-f]+|\d+)", re.IGNORECASE)
_TERM: Final = re.compile(r"([-+]?)\s*([^-+\s][^-+]*)")
_MEMORY: Final = re.compile(r"\[([^\]]*)\]")
_MASK64: Final = (1 << 64) - 1
_ABSOLUTE: Final = re.compile(r"\[\s*(0x[0-9a-f]+|\d+)\s*\]", re.IGNORECASE)


def relative(line: str, length: int, at: int) -> str:
    """Return the line with an absolute address of 64-bit code as one relative to RIP.

    With REX.W keystone forgets to make it that itself.
    """
    return _ABSOLUTE.sub(lambda found: f"[rip + {int(found[1], 0) - at - length}]", line)


@cache
def _engine(bits: int) -> Any:
    from capstone import CS_ARCH_X86, CS_MODE_16, CS_MODE_32, CS_MODE_64, Cs  # heavy

    made = Cs(CS_ARCH_X86, {16: CS_MODE_16, 32: CS_MODE_32, 64: CS_MODE_64}[bits])
    made.detail = True
    return made


def objection(line: str, code: bytes, at: int, bits: int) -> str | None:
    """Return why `code` at `at` is not what the line says, None if nothing speaks against it."""
    if line.count("[") != line.count("]"):
        return "a bracket is missing"
    if line.startswith(".") or not any(c.isdigit() for c in line):
        return None
    found = next(iter(_engine(bits).disasm(code, at, 1)), None)
    if found is None or found.size != len(code):
        return None  # more than one, or none that capstone knows
    return next((text for text in (*_immediates(line, found), *_displaced(line, found, at))), None)


def _operands(line: str) -> list[str]:
    """The words between commas, the mnemonic and its prefixes left out."""
    head, _, rest = line.partition(",")
    words = head.split()
    return [words[-1] if words else "", *(part.strip() for part in rest.split(","))]


def _immediates(line: str, found: Any) -> Iterator[str]:
    written = [int(o.replace(" ", ""), 0) for o in _operands(line) if _NUMBER.fullmatch(o)]
    read = [(o.imm, 8 * o.size) for o in found.operands if o.type == 2]  # X86_OP_IMM
    if len(written) != len(read):
        return
    for wanted, (value, width) in zip(written, read, strict=True):
        mask = (1 << width) - 1
        if not -(mask // 2) - 1 <= wanted <= mask or (wanted - value) & mask:
            yield f"keystone makes {value & mask:#x} of {wanted:#x}"


def _displaced(line: str, found: Any, at: int) -> Iterator[str]:
    inside = _MEMORY.findall(line)
    operands = [o for o in found.operands if o.type == 3]  # X86_OP_MEM
    if len(inside) != 1 or len(operands) != 1:
        return
    numbers = [
        sign + term for sign, term in _TERM.findall(inside[0]) if _NUMBER.fullmatch(term.strip())
    ]
    if len(numbers) != 1:
        return
    wanted, mask = int(numbers[0].replace(" ", ""), 0), (1 << 8 * found.addr_size) - 1
    relative = found.reg_name(operands[0].mem.base) == "rip" and "rip" not in inside[0].lower()
    value = operands[0].mem.disp + (at + found.size if relative else 0)
    if not -(mask // 2) - 1 <= wanted <= mask or (wanted - value) & mask:
        yield f"keystone makes {value & _MASK64:#x} of {wanted:#x}"
