"""The instruction forms to try, with the flags that the manual leaves undefined for each."""

from __future__ import annotations

from dataclasses import dataclass

CF, PF, AF, ZF, SF, OF = 1, 4, 0x10, 0x40, 0x80, 0x800
ALL = (1, 2, 4, 8)
WIDE = (2, 4, 8)


@dataclass(frozen=True)
class Form:
    """A template of one instruction.

    {m} memory, {r} {q} registers of the size, {wide} a larger one, {i} immediate, {x} {y} XMM,
    {count} shift count, {bit} register bit number; `memory` overrides the operand's size;
    `prefix` is the mandatory one, which keystone forgets in 16-bit mode.
    """

    name: str
    template: str
    sizes: tuple[int, ...] = ALL
    kind: str = "plain"
    memory: int = 0
    modes: tuple[int, ...] = (16, 32, 64)
    prefix: int = 0


def _many(names: str, template: str, **more: object) -> list[Form]:
    return [Form(n, template.replace("NAME", n), **more) for n in names.split()]  # type: ignore[arg-type]


CONDITIONS = "o no b ae e ne be a s ns p np l ge le g".split()

FORMS: list[Form] = [
    *_many("mov", "NAME {m}, {r}"),
    *_many("mov", "NAME {r}, {m}"),
    *_many("mov", "NAME {m}, {i}"),
    *_many("mov", "NAME {m}, ds", sizes=(2,)),
    *_many("mov", "NAME {m}, cs", sizes=(2,)),
    *_many("mov", "NAME {r}, ss", sizes=(2, 4, 8)),
    *_many("movzx", "NAME {wide}, {m}", sizes=(1, 2)),
    *_many("movsx", "NAME {wide}, {m}", sizes=(1, 2)),
    Form("movsxd", "movsxd {wide}, {m}", (4,), modes=(64,)),
    *_many("movbe", "NAME {m}, {r}", sizes=WIDE),
    *_many("movbe", "NAME {r}, {m}", sizes=WIDE),
    *_many("movnti", "NAME {m}, {r}", sizes=(4, 8), modes=(32, 64)),
    *_many("push pop", "NAME {m}", sizes=(2, 4), modes=(16, 32)),
    *_many("push pop", "NAME {m}", sizes=(2, 8), modes=(64,)),
    *_many("push pop", "NAME {r}", sizes=(2, 8), modes=(64,)),
    *_many("push pop", "NAME {r}", sizes=(2, 4), modes=(16, 32)),
    *_many("push", "NAME {i}", sizes=(4,), modes=(32, 64)),
    *_many("call jmp", "NAME {m}", sizes=(8,), kind="branch", modes=(64,)),
    *_many("call jmp", "NAME {m}", sizes=(4,), kind="branch", modes=(32,)),
    *_many("call jmp", "NAME {m}", sizes=(2,), kind="branch", modes=(16,)),
    *_many("xchg xadd", "NAME {m}, {r}"),
    *_many("xchg xadd", "NAME {r}, {q}"),
    *_many("cmpxchg", "NAME {m}, {r}", kind="compare"),
    *_many("cmpxchg", "lock NAME {m}, {r}", kind="compare"),
    *_many("cmpxchg", "NAME {q}, {r}"),
    Form("cmpxchg8b", "cmpxchg8b {m}", (8,), "compare_pair", modes=(64,)),
    Form("cmpxchg8b", "lock cmpxchg8b {m}", (4,), "compare_pair", 8, modes=(16, 32)),
    Form("cmpxchg16b", "cmpxchg16b {m}", (16,), "compare_pair", modes=(64,)),
    *_many("add or adc sbb and sub xor cmp test", "NAME {m}, {r}"),
    *_many("add or adc sbb and sub xor cmp", "NAME {r}, {m}"),
    *_many("add or adc sbb and sub xor cmp test", "NAME {m}, {i}"),
    *_many("add adc sbb sub", "NAME {r}, {q}"),
    *_many("add or xor sub", "lock NAME {m}, {r}"),
    *_many("inc dec neg not", "NAME {m}"),
    *_many("inc dec neg not", "NAME {r}"),
    *_many("shl shr sar rol ror rcl rcr", "NAME {m}, {count}"),
    *_many("shl sar rcl rcr", "NAME {r}, {count}"),
    *_many("shld shrd", "NAME {m}, {r}, {count}", sizes=WIDE),
    *_many("bt bts btr btc", "NAME {m}, {bit}", sizes=WIDE),
    *_many("bt bts btr btc", "NAME {m}, {count}", sizes=WIDE),
    *_many("bt btc", "NAME {q}, {r}", sizes=WIDE),
    *_many("mul imul", "NAME {m}"),
    *_many("imul", "NAME {r}, {m}", sizes=WIDE),
    *_many("imul", "NAME {r}, {m}, {i}", sizes=WIDE),
    *_many("div idiv", "NAME {m}", kind="divide"),
    *_many(" ".join(f"set{c}" for c in CONDITIONS), "NAME {m}", sizes=(1,)),
    *_many(" ".join(f"cmov{c}" for c in CONDITIONS), "NAME {r}, {m}", sizes=WIDE),
    *_many("movs stos lods cmps scas", "NAME{suffix}", kind="string"),
    *_many("movs stos lods", "rep NAME{suffix}", kind="string"),
    *_many("cmps scas", "repe NAME{suffix}", kind="string"),
    *_many("cmps scas", "repne NAME{suffix}", kind="string"),
    *_many("bsf bsr tzcnt lzcnt popcnt", "NAME {r}, {m}", sizes=WIDE),
    *_many("crc32", "NAME {r}, {m}", sizes=(4, 8)),
    *_many("crc32", "NAME {wide}, {m}", sizes=(1,)),
    *_many("movaps movups", "NAME {m}, {x}", sizes=(16,)),
    *_many("movaps movups lddqu xorps andnps", "NAME {x}, {m}", sizes=(16,)),
    *_many("movntps", "NAME {m}, {x}", sizes=(16,)),
    *_many("movapd movupd movdqa movntpd movntdq", "NAME {m}, {x}", sizes=(16,), prefix=0x66),
    *_many("movapd movupd movdqa movntdqa", "NAME {x}, {m}", sizes=(16,), prefix=0x66),
    *_many("pxor por andpd pandn", "NAME {x}, {m}", sizes=(16,), prefix=0x66),
    *_many("movlpd movhpd", "NAME {x}, {m}", sizes=(16,), memory=8, prefix=0x66),
    *_many("movlpd movhpd", "NAME {m}, {x}", sizes=(16,), memory=8, prefix=0x66),
    *_many("movd", "NAME {x}, {m}", sizes=(4,), prefix=0x66),
    *_many("movd", "NAME {m}, {x}", sizes=(4,), prefix=0x66),
    *_many("movd", "NAME {x}, {r}", sizes=(4,), prefix=0x66),
    *_many("pandn movdqa", "NAME {x}, {y}", sizes=(16,), prefix=0x66),
    *_many("movss", "NAME {x}, {m}", sizes=(4,)),
    *_many("movss", "NAME {m}, {x}", sizes=(4,)),
    *_many("movdqu", "NAME {x}, {m}", sizes=(16,)),
    *_many("movdqu", "NAME {m}, {x}", sizes=(16,)),
    *_many("movsd movlps movhps movq", "NAME {x}, {m}", sizes=(16,), memory=8),
    *_many("movsd movlps movhps", "NAME {m}, {x}", sizes=(16,), memory=8),
    *_many("movq", "NAME {m}, {x}", sizes=(16,), memory=8, prefix=0x66),
    *_many("movss movsd movq movaps", "NAME {x}, {y}", sizes=(16,)),
    *_many("movq", "NAME {r}, {x}", sizes=(8,), modes=(64,)),
    *_many("prefetcht0 clflush", "NAME {m}", sizes=(1,), kind="hint"),
]

_ALWAYS = {
    "and": AF, "or": AF, "xor": AF, "test": AF,
    "mul": SF | ZF | AF | PF, "imul": SF | ZF | AF | PF,
    "div": CF | OF | SF | ZF | AF | PF, "idiv": CF | OF | SF | ZF | AF | PF,
    "bt": OF | SF | AF | PF, "bts": OF | SF | AF | PF,
    "btr": OF | SF | AF | PF, "btc": OF | SF | AF | PF,
    "bsf": CF | OF | SF | AF | PF, "bsr": CF | OF | SF | AF | PF,
    "tzcnt": OF | SF | AF | PF, "lzcnt": OF | SF | AF | PF,
}  # fmt: skip
_SHIFTS = ("shl", "shr", "sar", "shld", "shrd")
_ROTATES = ("rol", "ror", "rcl", "rcr")


def undefined_flags(form: Form, count: int, size: int) -> int:
    """Return the flags undefined after this form (Intel SDM, *Flags Affected*)."""
    masked = count & (63 if size == 8 else 31)
    if form.name in _ROTATES:
        return 0 if masked <= 1 else OF
    if form.name not in _SHIFTS or not masked:
        return _ALWAYS.get(form.name, 0)
    beyond = CF if form.name in ("shl", "shr") and masked >= size * 8 else 0
    return AF | beyond | (OF if masked > 1 else 0)
