"""The x87 register stack as a program goes on: which registers are empty.

Unicorn's core checks no tags, so an overflow or underflow of the stack, which a processor answers
with the indefinite NaN, is a known difference (docs/ORACLES.md). Programs are made without.
"""

from typing import Final

_PUSH: Final = frozenset(
    {"fild", "fbld", "fld1", "fldl2t", "fldl2e", "fldpi", "fldlg2", "fldln2", "fldz"}
)
_NEEDS_NOTHING: Final = frozenset({"fnclex", "fnop", "fwait", "fxam", "fnstcw", "fnstsw", "fldcw"})
_POPS: Final = frozenset(
    {"fcomp", "fstp", "fistp", "fisttp", "fbstp", "faddp", "fmulp", "fsubrp", "fsubp", "fdivrp",
     "fdivp", "fucomp", "fucomip", "fcomip"}
)  # fmt: skip
_TWO: Final = frozenset({"fprem", "fprem1", "fscale", "fcompp", "fucompp"})
_LEAVE_STATUS: Final = frozenset(
    {"fcom", "fcomp", "fcompp", "ficom", "fucom", "fucomp", "fucompp", "ftst", "fxam", "fninit"}
)
"""They define C0, C2 and C3."""
_C0_C2_C3: Final = 0x4500


class Stack:
    """TOP and, by physical register, whether it is empty."""

    __slots__ = ("empty", "open", "top")

    def __init__(self, top: int, tags: int) -> None:
        """Start with an abridged tag word (a set bit: not empty)."""
        self.top = top
        self.empty = [not tags >> n & 1 for n in range(8)]
        self.open = 0
        """Bits of the status word that the manual leaves undefined: C0, C2, C3 after most."""

    def allows(self, name: str, register: int | None) -> bool:
        """Whether an instruction meets no stack fault; then it is carried out."""
        if not self._moves(name, register):
            return False
        if name not in _LEAVE_STATUS:  # a fault may leave what an earlier one set
            self.open |= _C0_C2_C3
        return True

    def _moves(self, name: str, register: int | None) -> bool:
        if name == "fld" or name in _PUSH or name == "fxtract":
            return self._push(name, register)
        if name in ("fincstp", "fdecstp"):
            self.top = self.top + (1 if name == "fincstp" else -1) & 7
            return True
        if name == "fninit":
            self.top, self.empty = 0, [True] * 8
            return True
        if name in _NEEDS_NOTHING:
            return True
        if name == "ffree":
            self.empty[self.top + (register or 0) & 7] = True
            return True
        return self._compute(name, register)

    def _compute(self, name: str, register: int | None) -> bool:
        if self._is_empty(0) or (name in _TWO and self._is_empty(1)):
            return False
        if register is not None and self._is_empty(register):
            return False  # FST would make it valid; the core forgets that
        for _ in range((name in _POPS) + 2 * (name in ("fcompp", "fucompp"))):
            self.empty[self.top] = True
            self.top = self.top + 1 & 7
        return True

    def _push(self, name: str, register: int | None) -> bool:
        if not self._is_empty(7):
            return False
        if register is not None and self._is_empty(register):
            return False
        if name == "fxtract" and self._is_empty(0):
            return False
        self.top = self.top - 1 & 7
        self.empty[self.top] = False
        return True

    def mmx(self, name: str) -> None:
        """An MMX instruction makes all registers valid, or all empty."""
        self.top, self.empty = (self.top, [True] * 8) if name == "emms" else (0, [False] * 8)

    def _is_empty(self, register: int) -> bool:
        return self.empty[self.top + register & 7]
