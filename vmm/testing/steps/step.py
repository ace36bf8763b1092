"""One recorded step: a processor before and after one instruction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

WORDS: Final = (
    "ax", "bx", "cx", "dx", "cs", "ss", "ds", "es", "sp", "bp", "si", "di", "ip", "flags",
)  # fmt: skip
"""The registers of a 16-bit processor, in the order of MOO's REGS."""
_PREFIXES: Final = frozenset((0x26, 0x2E, 0x36, 0x3E, 0xF0, 0xF2, 0xF3))


@dataclass(frozen=True, slots=True)
class Step:
    """`before` has all of WORDS, `after` those that changed; memory is by physical address."""

    name: str
    """The instruction, disassembled."""
    code: bytes
    before: Mapping[str, int]
    after: Mapping[str, int]
    memory: Mapping[int, int]
    memory_after: Mapping[int, int]
    halts: bool
    """Behind the instruction a HLT was executed: the final IP is that behind it."""
    exception: int | None = None
    flags_at: int | None = None
    """Where an exception pushed the flags."""
    digest: str = ""
    """The suite's own name for the step."""

    @property
    def expected(self) -> dict[str, int]:
        """Return all registers behind the instruction."""
        found = dict(self.before) | dict(self.after)
        if self.halts and self.opcode[:1] != b"\xf4":
            found["ip"] = found["ip"] - 1 & 0xFFFF
        return found

    @property
    def prefixes(self) -> bytes:
        """Return the bytes before the opcode."""
        return self.code[: len(self.code) - len(self.opcode)]

    @property
    def opcode(self) -> bytes:
        """Return the code without its prefixes."""
        at = 0
        while at < len(self.code) and self.code[at] in _PREFIXES:
            at += 1
        return self.code[at:]

    @property
    def form(self) -> str:
        """Return the opcode as differences.toml writes it: "F7", "0FA0"."""
        size = 2 if self.opcode[:1] == b"\x0f" else 1
        return self.opcode[:size].hex().upper()

    @property
    def extension(self) -> int:
        """Return bits 5:3 of the byte behind the opcode."""
        size = len(self.form) // 2
        return self.opcode[size] >> 3 & 7 if len(self.opcode) > size else 0


@dataclass(frozen=True, slots=True)
class Suite:
    """One file: whose steps they are, and the steps."""

    cpu: str
    """"8086" or "286"."""
    steps: list[Step]
    masks: Mapping[str, int] = field(default_factory=dict)
    """Defined flags by form, "F7" or "F7.6", where not all are; from metadata.json."""

    def flags_of(self, step: Step) -> int:
        """Return the flags that the recorded processor defines after a step."""
        byform = self.masks.get(step.form, 0xFFFF)
        return self.masks.get(f"{step.form}.{step.extension}", byform)
