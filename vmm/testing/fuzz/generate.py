"""Random programs: a few instructions and the state that they start in, from a seed and a number.

The same seed and number give the same program everywhere: what `ring1 fuzz` prints about a
difference is enough to make it again.
"""

from collections.abc import Sequence
from random import Random
from typing import Final

from vmm.testing.fuzz.encode import Encoder, Plan, UnfitError, string_target
from vmm.testing.fuzz.forms import ALL_FLAGS, FAMILIES, Form, forms
from vmm.testing.fuzz.record import DATA, WINDOWS, Program, State, slot_address
from vmm.testing.fuzz.stack87 import Stack

LONGEST: Final = 6
_CODE_ROOM: Final = 0xE0
_STACK: Final = DATA + WINDOWS[5] + 64
_DF: Final = 0x400
_RSP: Final = 4
_AC, _RF, _ID = 1 << 18, 1 << 16, 1 << 21
COMPARED: Final = ALL_FLAGS | _DF | _RF | _ID
_INTERESTING: Final = (
    0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000,
    0xFFFF_FFFF, 1 << 63, (1 << 63) - 1, (1 << 64) - 1,
)  # fmt: skip
_FLOATS32: Final = (
    0, 0x8000_0000, 0x3F80_0000, 0xBF80_0000, 0x7F80_0000, 0xFF80_0000, 0x7FC0_0000, 0xFFC0_0000,
    0x7F80_0001, 0x0000_0001, 0x007F_FFFF, 0x0080_0000, 0x7F7F_FFFF, 0x4F00_0000, 0x5F00_0000,
    0x3F00_0000, 0x4B00_0001, 0x3FC0_0000,
)  # fmt: skip
_FLOATS64: Final = (
    0, 1 << 63, 0x3FF0 << 48, 0xBFF0 << 48, 0x7FF0 << 48, 0xFFF0 << 48, 0x7FF8 << 48, 0xFFF8 << 48,
    0x7FF0_0000_0000_0001, 1, (1 << 52) - 1, 1 << 52, 0x7FEF_FFFF_FFFF_FFFF, 0x41E0 << 48,
    0x43E0 << 48, 0x3FE0 << 48, 0x36A0 << 48, 0x47EF_FFFF_F000_0000,
)  # fmt: skip
_FLOATS80: Final = (
    (0, 0), (0x8000, 0), (0x3FFF, 1 << 63), (0xBFFF, 1 << 63), (0x7FFF, 1 << 63),
    (0xFFFF, 1 << 63), (0x7FFF, 0xC000 << 48), (0xFFFF, 0xC000 << 48), (0x7FFF, 0xA000 << 48),
    (0, 1), (0, 1 << 63), (1, 1 << 63), (0x7FFE, (1 << 64) - 1), (0x403E, 1 << 63),
    (0x4000, 0xC90F_DAA2_2168_C235), (0x3FFE, 0xAAAA_AAAA_AAAA_AAAB),
)  # fmt: skip
_FAMILY_WEIGHTS: Final[dict[str, int]] = {
    "integer": 50, "string": 8, "sse": 18, "float": 10, "mmx": 6, "x87": 8,
}  # fmt: skip


def programs(
    seed: int, first: int, count: int, families: Sequence[str] = (), bits: int | None = None
) -> list[Program]:
    """Return programs number `first` and on, each made for its slot in a batch."""
    chosen = tuple(families) or tuple(FAMILIES)
    return [program(seed, first + n, n, chosen, bits) for n in range(count)]


def program(
    seed: int, number: int, slot: int, families: Sequence[str] = tuple(FAMILIES),
    bits: int | None = None,
) -> Program:  # fmt: skip
    """Return one program; `slot` is where it will lie, which changes addresses in it only."""
    random = Random(seed << 48 | number)
    width = bits or (32 if random.random() < 0.2 else 64)
    weights = [_FAMILY_WEIGHTS[name] for name in families]
    main = random.choices(families, weights)[0]
    gpr = _registers(random, width)
    plan = Plan(random, width, slot_address(slot), _hold(random, gpr, main, width))
    fx = _fx(random)
    plan.stack = Stack(fx[3] >> 3 & 7, fx[4])
    _fill(plan, main, families)
    flags = 0x202 | random.getrandbits(12) & ALL_FLAGS
    if random.random() < 0.1:
        flags |= _DF
    start = State(
        width, plan.at, tuple(gpr), flags, fx, _windows(random, main),
        end_mask=COMPARED & ~plan.undefined, fault_mask=COMPARED & ~plan.ever,
        status_open=plan.stack.open,
    )  # fmt: skip
    return Program(tuple(plan.code), start)


def _registers(random: Random, width: int) -> list[int]:
    """General registers: random in various widths, some of them interesting numbers."""
    values = []
    raw = random.getrandbits(16 * 64)
    for _ in range(16):
        value, raw = raw & 0xFFFF_FFFF_FFFF_FFFF, raw >> 64
        kind = value >> 58
        if kind < 14:
            value = _INTERESTING[value & 15]
        elif kind < 30:
            value >>= 32
        elif kind < 38:
            value >>= 56
        values.append(value & 0xFFFF_FFFF if width == 32 else value)
    values[4] = _STACK
    if width == 32:
        values[8:] = [0] * 8
    return values


def _hold(random: Random, gpr: list[int], family: str, width: int) -> dict[int, int]:
    """Choose the registers that hold addresses, and set them."""
    held = {4: _STACK}
    if family == "string":
        gpr[1] = random.choice((0, 1, 2, 3, 4))
        for number in (6, 7):
            gpr[number] = string_target(random)
            held[number] = gpr[number]
        held[1] = gpr[1]
        return held
    numbers = [n for n in range(16 if width == 64 else 8) if n != 4]
    for number in random.sample(numbers, random.choice((1, 2, 2, 3))):
        if random.random() < 0.3:  # an index
            gpr[number] = random.choice((0, 1, 2, 5, 16, 0x40, (1 << width) - 1, (1 << width) - 8))
        else:
            offset = random.choice((0, 0x10, -0x40, 0x1234, -0x7F000, 0x7FFFF))
            gpr[number] = DATA + WINDOWS[0] + offset
        held[number] = gpr[number]
    return held


def _fill(plan: Plan, main: str, families: Sequence[str]) -> None:
    """Add instructions: mostly of one family, between them others."""
    wanted = plan.random.randint(1, LONGEST)
    attempts = 0
    moved = False
    while len(plan.code) < wanted and attempts < 40:
        attempts += 1
        family = main
        if main == "string" and moved:
            family = "integer" if "integer" in families else main
        elif main != "integer" and "integer" in families and plan.random.random() < 0.25:
            family = "integer"
        if family == "string":
            if moved:
                return
            moved = _add_string(plan)
        else:
            _add(plan, family)
        if plan.here() - plan.at > _CODE_ROOM - 30:
            return


def _add(plan: Plan, family: str) -> None:
    form = plan.random.choice(forms(family, plan.bits))
    encoder = Encoder(plan, form)
    try:
        code = encoder.make()
    except UnfitError:
        return
    if not _keeps_stack(plan, form, code):
        return
    if form.operands and form.operands[0][0] == "J":
        _add_branch(plan, code)
    else:
        plan.code.append(code)
    _note_flags(plan, form, code)
    plan.held[_RSP] += _stack_moves(form.name, encoder.size, plan.bits // 8)


def _stack_moves(name: str, size: int, word: int) -> int:
    """By how much an instruction moves the stack pointer."""
    moves = {"push": -size, "pushf": -size, "pop": size, "pusha": -8 * size, "call": -word}
    return moves.get(name, 0)


def _keeps_stack(plan: Plan, form: Form, code: bytes) -> bool:
    """Whether an instruction meets no fault of the x87 stack."""
    if form.family == "x87":
        return plan.stack.allows(form.name, code[-1] & 7 if "Si" in form.operands else None)
    if form.family == "mmx" or any(word[0] in "PQN" for word in form.operands):
        plan.stack.mmx(form.name)
    return True


def _add_branch(plan: Plan, code: bytes) -> None:
    """A branch over one instruction that is drawn with it, so that both ways are short."""
    skipped = bytes([0x0F, 0x0B]) if plan.random.random() < 0.5 else b"\x90"
    width = 1 if code[-1:] == b"\0" and code[-4:] != bytes(4) else 4
    plan.code.append(code[:-width] + len(skipped).to_bytes(width, "little") + skipped)


def _note_flags(plan: Plan, form: Form, code: bytes) -> None:
    undefined = form.undefined
    if form.name in ("shl", "shr") and not _is_narrow(form, code):
        undefined &= ~1
    plan.undefined = plan.undefined & ~form.writes | undefined
    plan.ever |= plan.undefined


def _is_narrow(form: Form, code: bytes) -> bool:
    """Whether the operand has 8 or 16 bits: a shift by more leaves CF open."""
    return form.opcode[0] in (0xC0, 0xD0, 0xD2) or b"\x66" in code[:3]


def _add_string(plan: Plan) -> bool:
    """One string instruction, by REP or once: it moves RSI, RDI and RCX a little."""
    form = plan.random.choice(forms("string", plan.bits))
    if form.implied and 0 in plan.held:
        return False
    size = plan.random.choice(form.sizes)
    size = 4 if size == 8 and plan.bits == 32 else size
    prefix = plan.random.choice((b"", b"\xf3", b"\xf2"))
    rex = b"\x48" if size == 8 else b""
    narrow = b"\x66" if size == 2 else b""
    plan.code.append(narrow + prefix + rex + form.opcode)
    if not prefix:  # with RCX = 0 REP writes none
        plan.undefined &= ~form.writes
    plan.ever |= plan.undefined
    for number in (1, 6, 7):  # they hold no known address any more
        plan.held.pop(number, None)
    return True


def _fx(random: Random) -> bytes:
    """An FXSAVE image: control words that are legal, special values in every register."""
    raw = random.getrandbits(64)
    fcw = 0x37F if raw & 3 else 0x7F | (raw >> 2 & 3) << 10 | (0, 2, 3, 3)[raw >> 4 & 3] << 8
    fsw = (raw >> 8 & 7) << 11 | (raw >> 12 & 7) << 8
    tags = raw >> 18 & 0xFF | raw >> 40 & 0xFF
    mxcsr = 0x1F80 | (raw >> 26 & 3) << 13
    if raw >> 28 & 7 == 0:
        mxcsr |= (raw >> 31 & 1) << 15 | (raw >> 32 & 1) << 6
    head = (
        fcw.to_bytes(2, "little") + fsw.to_bytes(2, "little") + bytes([tags]) + bytes(19)
        + mxcsr.to_bytes(4, "little") + bytes(4)
    )  # fmt: skip
    return head + _st(random) + _xmm(random) + bytes(96)


def _st(random: Random) -> bytes:
    parts = []
    raw = random.getrandbits(8 * 96)
    for _ in range(8):
        value, raw = raw & (1 << 96) - 1, raw >> 96
        kind = value >> 92
        if kind < 6:
            exponent, mantissa = _FLOATS80[value & 15]
        elif kind < 13:
            exponent = 0x3FFF - 40 + (value >> 64 & 0xFF) % 80 | (value >> 72 & 1) << 15
            mantissa = value & (1 << 64) - 1 | 1 << 63
        else:
            exponent, mantissa = value >> 64 & 0xFFFF, value & (1 << 64) - 1
        parts.append(mantissa.to_bytes(8, "little") + exponent.to_bytes(2, "little") + bytes(6))
    return b"".join(parts)


def _xmm(random: Random) -> bytes:
    raw = bytearray(random.randbytes(256))
    kinds = random.getrandbits(32)
    for n in range(16):
        kind = kinds >> 2 * n & 3
        if kind == 1:
            for lane in range(4):
                value = _FLOATS32[raw[16 * n + 4 * lane] % len(_FLOATS32)]
                raw[16 * n + 4 * lane : 16 * n + 4 * lane + 4] = value.to_bytes(4, "little")
        elif kind == 2:
            for lane in range(2):
                value = _FLOATS64[raw[16 * n + 8 * lane] % len(_FLOATS64)]
                raw[16 * n + 8 * lane : 16 * n + 8 * lane + 8] = value.to_bytes(8, "little")
        elif kind == 3:
            _ordinary(raw, 16 * n, kinds & 1)
    return bytes(raw)


def _ordinary(raw: bytearray, at: int, double: int) -> None:
    """Numbers of ordinary size, whose sums and products are not all infinite."""
    if double:
        for lane in (at, at + 8):
            raw[lane + 7] = raw[lane + 7] & 0x80 | 0x3F + (raw[lane + 7] & 1)
    else:
        for lane in range(at, at + 16, 4):
            raw[lane + 3] = raw[lane + 3] & 0x80 | 0x3F + (raw[lane + 3] & 1)


def _windows(random: Random, family: str) -> bytes:
    raw = bytearray(random.randbytes(768))
    if family in ("float", "x87", "sse"):
        for at in range(0, 128, 16):
            if raw[at] & 1:
                _ordinary(raw, at, raw[at + 1] & 1)
    return bytes(raw)
