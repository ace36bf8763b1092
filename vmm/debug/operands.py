"""What an exit condition can name, and where the engine finds it.

Each name stands for one or more `Source`s: a place (a word of the exit record, a VMCS field, a
register), bits of it, and the exit reasons for which it means something. A comparison with a name
that an exit does not have is false. Qualification fields are those of `hwmodel.arch.qualification`.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

from hwmodel.arch.exits import ExitReason as R
from hwmodel.arch.qualification import QUALIFICATION, CrAccess, EptViolation, Io
from hwmodel.arch.vmcs import Field
from hwmodel.arch.word import Bits
from hwmodel.vmx.state import GPR_NAMES

_FIELD, _GPR = 0x100, 0x200  # enum operand of cext/stops.c
COUNT, _CPL, _STEPS, _CYCLES, _VCPU, REASON = range(0x300, 0x306)
_, _QUALIFICATION, _LENGTH, _LINEAR, _PHYSICAL, _INTERRUPTION, _ERROR = range(7)
_RIP, _SEQUENCE = 10, 13  # words of struct exit_record
_RAX, _RCX = 0, 1
REASONS: Final = 160  # exit reasons, and operations of the trap technique
ALL: Final = (1 << REASONS) - 1


@dataclass(frozen=True, slots=True)
class Source:
    """A value: `width` bits from `shift` of what `place` names, for exits of `reasons` (a bitmap).

    `constant` is a value that those exits have without looking.
    """

    place: int
    shift: int = 0
    width: int = 64
    reasons: int = ALL
    constant: int | None = None
    inverted: bool = False


def _mask(*reasons: R) -> int:
    return sum(1 << reason for reason in reasons)


def _bits(part: Bits[int], *reasons: R, inverted: bool = False) -> Source:
    return Source(
        _QUALIFICATION, part.low, part.high - part.low + 1, _mask(*reasons), inverted=inverted
    )


_EPT: Final = _mask(R.EPT_VIOLATION, R.EPT_MISCONFIG)
_EVENTS: Final = _mask(R.EXCEPTION_NMI, R.EXTERNAL_INTERRUPT)
OWN: Final[dict[str, tuple[Source, ...]]] = {
    "reason": (Source(REASON),),
    "qualification": (Source(_QUALIFICATION),),
    "length": (Source(_LENGTH),),
    "gpa": (Source(_PHYSICAL, reasons=_EPT),),
    "gla": (
        Source(_LINEAR, reasons=_EPT | _mask(R.IO_INSTRUCTION, R.APIC_ACCESS)),
        Source(_QUALIFICATION, reasons=_mask(R.INVLPG)),
    ),
    "rip": (Source(_RIP),),
    "vector": (
        Source(_INTERRUPTION, 0, 8, _EVENTS),
        Source(_QUALIFICATION, 0, 8, _mask(R.EOI_INDUCED, R.SIPI_SIGNAL)),
    ),
    "error_code": (Source(_ERROR, reasons=_mask(R.EXCEPTION_NMI)),),
    "cr2": (Source(_QUALIFICATION, reasons=_mask(R.EXCEPTION_NMI)),),
    "port": (_bits(Io.layout["port"], R.IO_INSTRUCTION),),
    "bytes": (_bits(Io.layout["size"], R.IO_INSTRUCTION),),
    "msr": (Source(_GPR + _RCX, 0, 32, _mask(R.MSR_READ, R.MSR_WRITE)),),
    "leaf": (Source(_GPR + _RAX, 0, 32, _mask(R.CPUID)),),
    "subleaf": (Source(_GPR + _RCX, 0, 32, _mask(R.CPUID)),),
    "nr": (Source(_GPR + _RAX, reasons=_mask(R.VMCALL)),),
    "write": (
        _bits(EptViolation.layout["write"], R.EPT_VIOLATION),
        _bits(Io.layout["is_in"], R.IO_INSTRUCTION, inverted=True),
        Source(0, reasons=_mask(R.MSR_WRITE), constant=1),
        _bits(CrAccess.layout["access_type"], R.CR_ACCESS, inverted=True),
        _bits(QUALIFICATION[R.DR_ACCESS].layout["is_read"], R.DR_ACCESS, inverted=True),
        Source(0, reasons=_mask(R.APIC_WRITE), constant=1),
    ),
    "read": (
        _bits(EptViolation.layout["read"], R.EPT_VIOLATION),
        _bits(Io.layout["is_in"], R.IO_INSTRUCTION),
        Source(0, reasons=_mask(R.MSR_READ), constant=1),
        _bits(QUALIFICATION[R.DR_ACCESS].layout["is_read"], R.DR_ACCESS),
    ),
    "vcpu": (Source(_VCPU),),
    "cpl": (Source(_CPL),),
    "cycle": (Source(_CYCLES),),
    "step": (Source(_STEPS),),
    "exit": (Source(_SEQUENCE),),
    "n": (Source(COUNT),),
}  # fmt: skip


@cache
def operands() -> dict[str, tuple[Source, ...]]:
    """Return every name; those of our own before registers, fields, qualification fields."""
    named: dict[str, tuple[Source, ...]] = {}
    for reason, word in QUALIFICATION.items():
        for name, part in word.layout.items():
            named[name] = (*named.get(name, ()), _bits(part, reason))
    named |= {field.name.lower(): (Source(_FIELD + field.index),) for field in Field}
    named |= {name: (Source(_GPR + number),) for number, name in enumerate(GPR_NAMES)}
    return named | OWN
