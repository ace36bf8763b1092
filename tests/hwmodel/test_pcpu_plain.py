"""Instructions that the engine does not look into: capstone agrees that there is nothing to see."""

import random
from collections import Counter

from capstone import CS_ARCH_X86, CS_MODE_64, Cs

from hwmodel._native import lib
from vmm import VM  # noqa: F401  the libraries are bound by it

HARMLESS = frozenset(
    "add or adc sbb and sub xor cmp push pop movsxd imul test xchg mov lea nop cbw cwde cdqe cwd"
    " cdq cqo rol ror rcl rcr shl shr sar sal leave not neg mul div idiv inc dec movzx movsx bt bts"
    " btr btc bsf bsr call jmp ret movabs".split()
)
CONDITIONS = frozenset("o no b ae e ne be a s ns p np l ge le g".split())
SPECIAL = frozenset(
    ["cs", "ds", "es", "ss", "fs", "gs", *(f"{k}r{n}" for k in "cd" for n in range(16))]
)


def is_harmless(mnemonic: str) -> bool:
    """An integer instruction that no ring and no control has anything to do with."""
    if mnemonic in HARMLESS:
        return True
    stem = next((s for s in ("cmov", "set", "j") if mnemonic.startswith(s)), None)
    return stem is not None and mnemonic.removeprefix(stem) in CONDITIONS


def test_capstone_sees_the_same_length_and_nothing_to_trap() -> None:
    decoder = Cs(CS_ARCH_X86, CS_MODE_64)
    chance = random.Random(7)
    prefixes = [
        bytes.fromhex(p) for p in ("", "", "", "48", "66", "41", "664d", "65", "f0", "f3", "f2")
    ]
    seen: Counter[str] = Counter()
    for _ in range(60000):
        start = chance.choice(prefixes) + (b"\x0f" if chance.random() < 0.3 else b"")
        code = start + chance.randbytes(20)
        length = lib.decode_plain(code, 20)
        if not length:
            continue
        (first,) = decoder.disasm(code, 0, 1)
        assert first.size == length, code.hex()
        assert is_harmless(first.mnemonic), f"{first.mnemonic} {first.op_str}: {code.hex()}"
        fragile = first.mnemonic in ("rcl", "rcr") or first.mnemonic.startswith("set")
        assert not (fragile and "[" in first.op_str), code.hex()
        if first.mnemonic == "mov":
            operands = (word.strip() for word in first.op_str.split(","))
            assert SPECIAL.isdisjoint(operands), code.hex()
        seen[first.mnemonic] += 1
    assert len(seen) > 60
    assert not {"lcall", "ljmp"} & set(seen)


def test_most_code_is_plain() -> None:
    text = bytes.fromhex("554889e54883ec10 8b45fc 0fb6c0 7405 e800000000 c9 c3".replace(" ", ""))
    at = count = 0
    while at < len(text):
        length = lib.decode_plain(text[at:] + bytes(15), 20)
        assert length
        at, count = at + length, count + 1
    assert (at, count) == (len(text), 9)
