"""Instructions that keystone 0.9.2 does not know, or gets wrong: our own encodings.

Each row: a pattern over the line in lower case, and what it makes. Encodings are those of the
manuals' "Instruction Set Reference" (Intel's Volume 2; AMD's Volume 3 for SVM).
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Final

Assemble = Callable[[str, int, int], bytes]

FIXED: Final = {
    "endbr64": "f30f1efa", "endbr32": "f30f1efb", "wbnoinvd": "f30f09", "sysretq": "480f07",
    "sysexitq": "480f35", "vmrun": "0f01d8", "vmmcall": "0f01d9", "vmload": "0f01da",
    "vmsave": "0f01db", "stgi": "0f01dc", "clgi": "0f01dd", "skinit": "0f01de",
    "invlpga": "0f01df", "serialize": "0f01e8", "clac": "0f01ca", "stac": "0f01cb",
    "rdpkru": "0f01ee", "wrpkru": "0f01ef", "xgetbv": "0f01d0", "xsetbv": "0f01d1",
    "encls": "0f01cf", "enclu": "0f01d7", "enclv": "0f01c0", "pconfig": "0f01c5",
    "vmfunc": "0f01d4", "xend": "0f01d5", "xtest": "0f01d6", "swapgs": "0f01f8",
    "rdtscp": "0f01f9", "monitorx": "0f01fa", "mwaitx": "0f01fb", "clzero": "0f01fc",
    "getsec": "0f37", "int1": "f1", "icebp": "f1", "ud1": "0fb9c0", "ud0": "0fffc0",
    "fep": "0f0b6b766d", "wrmsrns": "0f01c6", "rdmsrlist": "f20f01c6", "wrmsrlist": "f30f01c6",
    "seamcall": "660f01cf", "tdcall": "660f01cc", "uiret": "f30f01ec", "clui": "f30f01ee",
    "stui": "f30f01ef", "testui": "f30f01ed", "setssbsy": "f30f01e8", "saveprevssp": "f30f01ea",
    "erets": "f20f01ca", "eretu": "f30f01ca", "lretq": "48cb", "rdpru": "0f01fd",
    "invlpgb": "0f01fe", "tlbsync": "0f01ff", "mcommit": "f30f01fa", "psmash": "f30f01ff",
    "pvalidate": "f20f01ff", "rmpupdate": "f20f01fe", "rmpadjust": "f30f01fe",
}  # fmt: skip
"""No operands: the bytes. `fep` is KVM's forced-emulation prefix."""

_REG32: Final = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
_REG64: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
_HIGH: Final = tuple(f"r{n}" for n in range(8, 16))


def _number(register: str) -> int:
    """The hardware number of a general register of 32 or 64 bits."""
    for names in (_REG32, _REG64):
        if register in names:
            return names.index(register)
    return 8 + _HIGH.index(register.rstrip("d"))


def _register_form(
    prefix: str, opcode: str, extension: int, match: re.Match[str], *_rest: object, wide: bool
) -> bytes:
    """PREFIX [REX] OPCODE /extension with the register in ModRM.rm."""
    register = match["reg"]
    number = _number(register)
    is_wide = wide and (register in _REG64 or (register in _HIGH))
    rex = (0x48 if is_wide else 0) | (0x41 if number >= 8 else 0)
    modrm = 0xC0 | extension << 3 | number & 7
    return bytes.fromhex(prefix) + bytes([rex] * bool(rex)) + bytes.fromhex(opcode) + bytes([modrm])


def _svm(opcode: str, match: re.Match[str], _at: int, bits: int, _plain: Assemble) -> bytes:
    """VMRUN and its like take rAX as it is addressed: EAX in 64-bit code has an address prefix."""
    widths = {"ax": 16, "eax": 32, "rax": 64}
    prefix = b"\x67" if widths[match["reg"]] != bits else b""
    return prefix + bytes.fromhex(opcode)


def _far(opcode32: int, match: re.Match[str], _at: int, bits: int, _plain: Assemble) -> bytes:
    """CALL or JMP ptr16:16/32: `jmp far 0x18:0x1234`."""
    selector, offset = int(match["sel"], 0), int(match["off"], 0)
    size = 2 if bits == 16 else 4
    return (
        bytes([opcode32])
        + (offset & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        + (selector & 0xFFFF).to_bytes(2, "little")
    )


def _far_memory(extension: int, match: re.Match[str], at: int, bits: int, plain: Assemble) -> bytes:
    """CALL or JMP m16:16/32/64 by way of an instruction with the same operand form."""
    size = match["size"] or {16: "fword", 32: "fword", 64: "fword"}[bits]
    code = plain(f"inc dword ptr {match['mem']}", at, bits)
    code = _with_operand_size(code, size, bits)
    place = code.index(0xFF)
    modrm = code[place + 1] & 0xC7 | extension << 3
    return code[: place + 1] + bytes([modrm]) + code[place + 2 :]


def _with_operand_size(code: bytes, size: str, bits: int) -> bytes:
    """The prefixes of `inc dword ptr` made those of a far pointer with that offset size."""
    code = code.replace(b"\x66", b"", 1) if code[:1] == b"\x66" else code
    wanted = {"dword": 16, "fword": 32, "tbyte": 64}[size]
    if wanted == 64:
        place = code.index(0xFF)
        has_rex = place and code[place - 1] & 0xF0 == 0x40
        rex = code[place - 1] | 0x48 if has_rex else 0x48
        return code[: place - 1 if has_rex else place] + bytes([rex]) + code[place:]
    default = 16 if bits == 16 else 32
    return (b"\x66" if wanted != default else b"") + code


def _memory_form(
    prefix: str, opcode: str, extension: int, match: re.Match[str], at: int, bits: int,
    plain: Assemble,
) -> bytes:  # fmt: skip
    """PREFIX [REX] OPCODE /extension with memory, by way of INC."""
    code = plain(f"inc byte ptr {match['mem']}", at, bits)
    place = code.index(0xFE)
    modrm = code[place + 1] & 0xC7 | extension << 3
    return (
        bytes.fromhex(prefix)
        + code[:place]
        + bytes.fromhex(opcode)
        + bytes([modrm])
        + code[place + 2 :]
    )


def _pair(
    prefix: str, opcode: str, match: re.Match[str], at: int, bits: int, plain: Assemble
) -> bytes:
    """PREFIX [REX] OPCODE /r, `rm` being memory or a register, by way of TEST."""
    code = plain(f"test {match['rm']}, {match['reg']}", at, bits)
    place = code.index(0x85)
    return bytes.fromhex(prefix) + code[:place] + bytes.fromhex(opcode) + code[place + 1 :]


def _word(value: int) -> bytes:
    return (value & 0xFFFF).to_bytes(2, "little")


def _return_16(match: re.Match[str], _at: int, _bits: int, _plain: Assemble) -> bytes:
    opcode = 0xC3 if match["what"] == "ret" else 0xCB
    if match["n"] is None:
        return bytes([opcode])
    return bytes([opcode - 1]) + _word(int(match["n"], 0))


def _push_16(match: re.Match[str], at: int, bits: int, plain: Assemble) -> bytes:
    value = int(match["sign"] + match["n"], 0)
    if not -0x8000 <= value <= 0xFFFF:
        return plain(match[0], at, bits)  # which objects
    if -0x80 <= value < 0x80:
        return bytes([0x6A, value & 0xFF])
    return bytes([0x68]) + _word(value)


def _call_16(match: re.Match[str], at: int, _bits: int, _plain: Assemble) -> bytes:
    return bytes([0xE8]) + _word(int(match["n"], 0) - at - 3)


_REG: Final = r"(?P<reg>[er]?[abcd]x|[er]?[sd]i|[er]?[sb]p|r(?:8|9|1[0-5])d?)"
_PTR: Final = r"(?:(?P<size>dword|fword|tbyte)\s+(?:ptr\s+)?)?(?P<mem>(?:[c-gs]s:)?\[.*\])"
_MEM: Final = r"(?:byte\s+ptr\s+|qword\s+ptr\s+)?(?P<mem>(?:[c-gs]s:)?\[.*\])"
_RM: Final = r"(?P<rm>(?:[c-gs]s:)?\[.*\]|[er]?[abcd]x|[er]?[sd]i|[er]?[sb]p|r(?:8|9|1[0-5])d?)"
_COUNT: Final = r"(?P<n>0x[0-9a-f]+|\d+)"
_NUMBERS: Final = r"(?P<sel>0x[0-9a-f]+|\d+)\s*:\s*(?P<off>0x[0-9a-f]+|\d+)"
Maker = Callable[[re.Match[str], int, int, Assemble], bytes]


def _by_register(prefix: str, opcode: str, extension: int, *, wide: bool = False) -> Maker:
    return partial(_register_form, prefix, opcode, extension, wide=wide)


PATTERNS: Final[tuple[tuple[re.Pattern[str], Maker], ...]] = tuple(
    (re.compile(pattern), maker)
    for pattern, maker in (
        (rf"umwait\s+{_REG}(?:\s*,.*)?", _by_register("f2", "0fae", 6)),
        (rf"tpause\s+{_REG}(?:\s*,.*)?", _by_register("66", "0fae", 6)),
        (rf"umonitor\s+{_REG}", _by_register("f3", "0fae", 6)),
        (rf"rdpid\s+{_REG}", _by_register("f3", "0fc7", 7)),
        (rf"rdfsbase\s+{_REG}", _by_register("f3", "0fae", 0, wide=True)),
        (rf"rdgsbase\s+{_REG}", _by_register("f3", "0fae", 1, wide=True)),
        (rf"wrfsbase\s+{_REG}", _by_register("f3", "0fae", 2, wide=True)),
        (rf"wrgsbase\s+{_REG}", _by_register("f3", "0fae", 3, wide=True)),
        (r"vmrun\s+(?P<reg>[er]?ax)", partial(_svm, "0f01d8")),
        (r"vmload\s+(?P<reg>[er]?ax)", partial(_svm, "0f01da")),
        (r"vmsave\s+(?P<reg>[er]?ax)", partial(_svm, "0f01db")),
        (r"invlpga\s+(?P<reg>[er]?ax)\s*(?:,\s*ecx)?", partial(_svm, "0f01df")),
        (rf"ptwrite\s+{_REG}", _by_register("f3", "0fae", 4, wide=True)),
        (rf"incssp[dq]\s+{_REG}", _by_register("f3", "0fae", 5, wide=True)),
        (rf"rdssp[dq]\s+{_REG}", _by_register("f3", "0f1e", 1, wide=True)),
        (rf"senduipi\s+{_REG}", _by_register("f3", "0fc7", 6)),
        (rf"cldemote\s+{_MEM}", partial(_memory_form, "", "0f1c", 0)),
        (rf"clrssbsy\s+{_MEM}", partial(_memory_form, "f3", "0fae", 6)),
        (rf"rstorssp\s+{_MEM}", partial(_memory_form, "f3", "0f01", 5)),
        (rf"movdiri\s+{_RM},\s*{_REG}", partial(_pair, "", "0f38f9")),
        (rf"wrss[dq]\s+{_RM},\s*{_REG}", partial(_pair, "", "0f38f6")),
        (rf"wruss[dq]\s+{_RM},\s*{_REG}", partial(_pair, "66", "0f38f5")),
        (rf"movdir64b\s+{_REG},\s*{_RM}", partial(_pair, "66", "0f38f8")),
        (rf"enqcmd\s+{_REG},\s*{_RM}", partial(_pair, "f2", "0f38f8")),
        (rf"enqcmds\s+{_REG},\s*{_RM}", partial(_pair, "f3", "0f38f8")),
        (rf"ud1\s+{_REG},\s*{_RM}", partial(_pair, "", "0fb9")),
        (rf"ud0\s+{_REG},\s*{_RM}", partial(_pair, "", "0fff")),
        (rf"jmp\s+far\s+{_NUMBERS}", partial(_far, 0xEA)),
        (rf"call\s+far\s+{_NUMBERS}", partial(_far, 0x9A)),
        (rf"jmp\s+far\s+{_PTR}", partial(_far_memory, 5)),
        (rf"call\s+far\s+{_PTR}", partial(_far_memory, 3)),
    )
)

SIXTEEN: Final[tuple[tuple[re.Pattern[str], Maker], ...]] = tuple(
    (re.compile(pattern), maker)
    for pattern, maker in (
        (rf"(?P<what>retf|ret)(?:\s+{_COUNT})?", _return_16),
        (rf"push\s+(?P<sign>-?){_COUNT}", _push_16),
        (rf"call\s+{_COUNT}", _call_16),
    )
)
"""In 16-bit code keystone gives these an operand-size prefix: they would move 32 bits."""


def expand(line: str, at: int, bits: int, plain: Assemble) -> bytes | None:
    """Return the code of a line that is one of ours, None for keystone's."""
    text = " ".join(line.lower().split())
    if text in FIXED:
        return bytes.fromhex(FIXED[text])
    for pattern, maker in (*PATTERNS, *SIXTEEN) if bits == 16 else PATTERNS:
        if found := pattern.fullmatch(text):
            return maker(found, at, bits, plain)
    return None
