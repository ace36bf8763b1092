"""Blocks of instructions by a seed: ALU, memory, SSE, and all of these mixed.

A block is a loop's body. R15 counts the rounds, RSI, RDI and RBX point at memory of its own, RSP is
a stack; these are left alone, everything else may be written.
"""

import random
from dataclasses import dataclass

SEED = 20240807
"""Fixed before anything was tuned. The blocks whose number it draws are held out."""
COUNT = 320
HELD_OUT = 0.30
KINDS = ("alu", "memory", "sse", "mixed")
_LONG = ("rax", "rcx", "rdx", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14")
_WORD = ("eax", "ecx", "edx", "ebp", "r8d", "r9d", "r10d", "r11d", "r12d", "r13d", "r14d")
_BYTE = ("al", "cl", "dl", "bpl", "r8b", "r9b", "r10b", "r11b", "r12b", "r13b", "r14b")
_CONDITIONS = ("e", "ne", "b", "ae", "l", "ge", "a", "be", "s", "ns")
_ARITHMETIC = ("add", "sub", "and", "or", "xor", "adc", "sbb", "cmp", "test")
_PACKED = ("addps", "mulps", "subps", "maxps", "minps", "addpd", "mulpd", "subpd", "andps", "xorps",
           "orps", "paddd", "paddq", "paddb", "psubd", "psubw", "pand", "por", "pxor", "pcmpeqd",
           "pmulld", "pmuludq", "pmullw", "pmaddwd", "punpckldq", "punpcklqdq", "unpcklps",
           "pshufb", "pmaxsd", "pminub", "packssdw")  # fmt: skip
_SCALAR = (
    "addss",
    "mulss",
    "subss",
    "addsd",
    "mulsd",
    "subsd",
    "maxsd",
    "minss",
    "divss",
    "sqrtss",
)


@dataclass(frozen=True, slots=True)
class Block:
    """One loop body in Intel syntax, a line each."""

    number: int
    kind: str
    held_out: bool
    lines: tuple[str, ...]


class _Writer:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def pair(self) -> tuple[str, str, str]:
        """Two registers of one size, and the name of that size in memory."""
        names, size = self.chance.choice(((_LONG, "qword"), (_LONG, "qword"), (_WORD, "dword")))
        return self.chance.choice(names), self.chance.choice(names), size

    def place(self, size: str) -> str:
        """A place in memory, aligned to sixteen bytes; few of them, so that some are met again."""
        base = self.chance.choice(("rsi", "rdi", "rbx"))
        return f"{size} ptr [{base} + {16 * self.chance.randrange(24)}]"

    def alu(self) -> str:
        a, b, _ = self.pair()
        number, c = self.chance.randrange(1, 100), self.chance.choice
        return c((
            f"{c(_ARITHMETIC)} {a}, {b}", f"{c(_ARITHMETIC)} {a}, {b}", f"{c(_ARITHMETIC)} {a}, {number}",
            f"mov {a}, {b}", f"mov {a}, {number}", f"lea {c(_LONG)}, [{c(_LONG)} + {number}]",
            f"lea {c(_LONG)}, [{c(_LONG)} + 4*{c(_LONG)}]", f"{c(('shl', 'shr', 'sar', 'rol'))} {a}, {number % 31 + 1}",
            f"imul {a}, {b}", f"imul {a}, {b}, {number}", f"{c(('inc', 'dec', 'neg', 'not'))} {a}",
            f"cmov{c(_CONDITIONS)} {a}, {b}", f"set{c(_CONDITIONS)} {c(_BYTE)}",
            f"movzx {c(_WORD)}, {c(_BYTE)}", f"movsx {c(_LONG)}, {c(_BYTE)}", f"movsxd {c(_LONG)}, {c(_WORD)}",
            f"bswap {a}", f"popcnt {a}, {b}", f"bt {a}, {number % 31}", f"xchg {a}, {b}",
            f"tzcnt {a}, {b}", f"{c(('add', 'xor', 'or'))} {c(_BYTE)}, {c(_BYTE)}",
        ))  # fmt: skip

    def memory(self) -> str:
        a, _, size = self.pair()
        c, number = self.chance.choice, self.chance.randrange(1, 100)
        return c((
            f"mov {a}, {self.place(size)}", f"mov {a}, {self.place(size)}", f"mov {self.place(size)}, {a}",
            f"mov {self.place(size)}, {a}", f"mov {self.place('dword')}, {number}",
            f"{c(_ARITHMETIC[:5])} {a}, {self.place(size)}", f"{c(_ARITHMETIC[:5])} {self.place(size)}, {a}",
            f"cmp {a}, {self.place(size)}", f"movzx {c(_WORD)}, {self.place('byte')}",
            f"imul {a}, {self.place(size)}", f"inc {self.place(size)}", f"lea {c(_LONG)}, [rsi + {number}]",
            f"push {c(_LONG)}\npop {c(_LONG)}",
        ))  # fmt: skip

    def sse(self) -> str:
        c = self.chance.choice
        x, y = (f"xmm{self.chance.randrange(16)}" for _ in range(2))
        return c((
            f"{c(_PACKED)} {x}, {y}", f"{c(_PACKED)} {x}, {y}", f"{c(_PACKED)} {x}, {y}", f"{c(_SCALAR)} {x}, {y}",
            f"movaps {x}, {y}", f"movaps {x}, {self.place('xmmword')}", f"movups {self.place('xmmword')}, {x}",
            f"{c(_PACKED)} {x}, {self.place('xmmword')}", f"pshufd {x}, {y}, 27", f"shufps {x}, {y}, 78",
            f"pslld {x}, 3", f"psrlq {x}, 7", f"pslldq {x}, 4", f"cvtdq2ps {x}, {y}", f"cvttps2dq {x}, {y}",
        ))  # fmt: skip

    def mixed(self) -> str:
        return self.chance.choice((self.alu, self.alu, self.memory, self.sse))()

    def body(self, kind: str) -> tuple[str, ...]:
        lines: list[str] = []
        for _ in range(self.chance.randrange(3, 17)):
            lines += getattr(self, kind)().split("\n")
        return tuple(lines)


def blocks(seed: int = SEED, count: int = COUNT) -> list[Block]:
    """All of them; the same for the same seed."""
    writer = _Writer(seed)
    held = set(random.Random(seed + 1).sample(range(count), round(HELD_OUT * count)))
    return [
        Block(number, KINDS[number % 4], number in held, writer.body(KINDS[number % 4]))
        for number in range(count)
    ]
