"""Exits with little to do: cache control, random numbers."""

from typing import TYPE_CHECKING, Final

from hwmodel.vmx.exit import Exit
from vmm.inject import inject_exception
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_UD: Final = 6
_CF, _OTHERS = 1, 0x8D4  # RDRAND sets CF and clears OF SF ZF AF PF
_MASK64: Final = (1 << 64) - 1


def handle_nothing_to_do(_vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """WBINVD, INVD: the modelled caches are coherent."""
    return Outcome.SKIP


def handle_not_offered(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """VMX, MONITOR: CPUID does not show the feature, so #UD as on a processor without it."""
    inject_exception(vcpu, _UD, None)
    return Outcome.RESUME


def handle_random(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """RDRAND, RDSEED: a seeded sequence (SplitMix64), so that a run is the same twice."""
    number, size = _destination(vcpu.fetch(vmexit.instruction_length))
    vcpu.random_state = (vcpu.random_state + 0x9E3779B97F4A7C15) & _MASK64
    z = vcpu.random_state
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK64
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK64
    vcpu.set_register(number, (z ^ z >> 31), size)
    vcpu.regs.rflags = vcpu.regs.rflags & ~_OTHERS | _CF
    return Outcome.SKIP


def _destination(code: bytes) -> tuple[int, int]:
    """Return (register number, bytes) of 0F C7 /6 and /7."""
    at = code.index(0x0F)
    rex = code[at - 1] if at and code[at - 1] & 0xF0 == 0x40 else 0
    number = code[at + 2] & 7 | (rex & 1) << 3
    return number, 8 if rex & 8 else 2 if 0x66 in code[:at] else 4
