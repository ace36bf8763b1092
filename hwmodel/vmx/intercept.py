"""The readable twin of the intercept decision: does this instruction, or exception, exit?

"Instructions That Cause VM Exits", "Other Causes of VM Exits", "Changes to Instruction Behavior in
VMX Non-Root Operation". Asked at CPL 0 in 64-bit mode, where the instruction itself is legal; what
exits is told with its qualification, None runs (or faults) in the guest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from hwmodel.arch.controls import Primary, Secondary
from hwmodel.arch.exits import ExitReason as R
from hwmodel.arch.vmcs import Field

ReadMemory = Callable[[int, int], int]
_TS, _LOW_FOUR, _PE = 1 << 3, 0xF, 1
_PAGE_FAULT: Final = 14
_CR3_TARGETS: Final = (
    Field.CR3_TARGET_VALUE0, Field.CR3_TARGET_VALUE1, Field.CR3_TARGET_VALUE2,
    Field.CR3_TARGET_VALUE3,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exits:
    """An exit, as software reads it."""

    reason: R
    qualification: int = 0


@dataclass(frozen=True, slots=True)
class Plain:
    """An instruction that one control decides about, with the qualification it would have."""

    reason: R
    qualification: int = 0


@dataclass(frozen=True, slots=True)
class MovToCr:
    """MOV of `value` from general register `register` to CR0, CR3, CR4 or CR8."""

    cr: int
    register: int
    value: int


@dataclass(frozen=True, slots=True)
class MovFromCr:
    """MOV from a control register."""

    cr: int
    register: int


@dataclass(frozen=True, slots=True)
class Lmsw:
    """LMSW of `source`, 16 bits, from a register."""

    source: int


@dataclass(frozen=True, slots=True)
class Clts:
    """CLTS."""


@dataclass(frozen=True, slots=True)
class Io:
    """IN or OUT of `size` bytes; `qualification` is what an exit tells."""

    port: int
    size: int
    qualification: int


@dataclass(frozen=True, slots=True)
class MsrAccess:
    """RDMSR or WRMSR of a register that the processor keeps itself."""

    msr: int
    writes: bool


@dataclass(frozen=True, slots=True)
class Raises:
    """An exception, with its error code; `qualification` is a page fault's address."""

    vector: int
    error: int = 0
    qualification: int = 0


Attempt = Plain | MovToCr | MovFromCr | Lmsw | Clts | Io | MsrAccess | Raises

_BY_PRIMARY: Final = {
    R.HLT: "hlt_exiting", R.INVLPG: "invlpg_exiting", R.RDPMC: "rdpmc_exiting",
    R.RDTSC: "rdtsc_exiting", R.RDTSCP: "rdtsc_exiting", R.DR_ACCESS: "mov_dr_exiting",
    R.PAUSE_INSTRUCTION: "pause_exiting", R.MWAIT_INSTRUCTION: "mwait_exiting",
    R.MONITOR_INSTRUCTION: "monitor_exiting",
}  # fmt: skip
_BY_SECONDARY: Final = {
    R.WBINVD: "wbinvd_exiting", R.RDRAND: "rdrand_exiting", R.RDSEED: "rdseed_exiting",
    R.GDTR_IDTR: "descriptor_table_exiting", R.LDTR_TR: "descriptor_table_exiting",
}  # fmt: skip
_ALWAYS: Final = frozenset(
    {R.CPUID, R.INVD, R.VMCALL, R.VMCLEAR, R.VMLAUNCH, R.VMPTRLD, R.VMPTRST, R.VMRESUME, R.VMOFF,
     R.VMON}
)  # fmt: skip


class Intercepts:
    """The controls of one VMCS, and the bitmaps in machine memory."""

    def __init__(self, fields: Mapping[Field, int], read: ReadMemory) -> None:
        """`read(hpa, size)` gives memory; where none is, all ones."""
        self._fields: Final = fields
        self._read: Final = read

    def decide(self, attempt: Attempt) -> Exits | None:
        """Return the exit that the attempt causes, None if it causes none."""
        match attempt:
            case Plain(reason, qualification):
                return Exits(reason, qualification) if self._plain(reason) else None
            case MovToCr(cr, register, value):
                exits = self._mov_to_cr(cr, value)
                return Exits(R.CR_ACCESS, cr | register << 8) if exits else None
            case MovFromCr(cr, register):
                exits = self._mov_from_cr(cr)
                return Exits(R.CR_ACCESS, cr | 1 << 4 | register << 8) if exits else None
            case Lmsw(source):
                exits = self._lmsw(source)
                return Exits(R.CR_ACCESS, 3 << 4 | source << 16) if exits else None
            case Clts():
                owned = self._fields[Field.CR0_GUEST_HOST_MASK] & _TS
                exits = bool(owned & self._fields[Field.CR0_READ_SHADOW])
                return Exits(R.CR_ACCESS, 2 << 4) if exits else None
            case Io(port, size, qualification):
                return Exits(R.IO_INSTRUCTION, qualification) if self._io(port, size) else None
            case MsrAccess(msr, writes):
                reason = R.MSR_WRITE if writes else R.MSR_READ
                return Exits(reason) if self._msr(msr, writes) else None
            case Raises(vector, error, qualification):
                exits = self._exception(vector, error)
                return Exits(R.EXCEPTION_NMI, qualification) if exits else None

    @property
    def _primary(self) -> Primary:
        return Primary(self._fields[Field.CPU_BASED_VM_EXEC_CONTROL])

    @property
    def _secondary(self) -> Secondary:
        """All 0 unless the primary controls activate them."""
        active = self._primary.activate_secondary_controls
        return Secondary(self._fields[Field.SECONDARY_VM_EXEC_CONTROL] if active else 0)

    def _plain(self, reason: R) -> bool:
        if reason in _ALWAYS:
            return True
        if reason is R.INVPCID:  # both: it runs at all, and exits as INVLPG does
            return self._secondary.enable_invpcid and self._primary.invlpg_exiting
        if reason in _BY_SECONDARY:
            return bool(getattr(self._secondary, _BY_SECONDARY[reason]))
        return bool(getattr(self._primary, _BY_PRIMARY[reason]))

    def _mov_to_cr(self, cr: int, value: int) -> bool:
        if cr == 3:
            count = self._fields[Field.CR3_TARGET_COUNT]
            targets = [self._fields[field] for field in _CR3_TARGETS[:count]]
            return self._primary.cr3_load_exiting and value not in targets
        if cr == 8:
            return self._primary.cr8_load_exiting
        name = f"CR{cr}"
        mask, shadow = Field[f"{name}_GUEST_HOST_MASK"], Field[f"{name}_READ_SHADOW"]
        return bool((value ^ self._fields[shadow]) & self._fields[mask])

    def _mov_from_cr(self, cr: int) -> bool:
        if cr == 3:
            return self._primary.cr3_store_exiting
        return cr == 8 and self._primary.cr8_store_exiting

    def _lmsw(self, source: int) -> bool:
        """Bits 3:0, of which LMSW can set PE and not clear it."""
        mask = self._fields[Field.CR0_GUEST_HOST_MASK] & _LOW_FOUR
        differs = (source ^ self._fields[Field.CR0_READ_SHADOW]) & mask
        clears_pe = differs & _PE and not source & _PE
        return bool(differs & ~_PE or (differs & _PE and not clears_pe))

    def _io(self, port: int, size: int) -> bool:
        """Bitmaps take the place of unconditional exiting; an access that wraps around exits."""
        if not self._primary.use_io_bitmaps:
            return self._primary.uncond_io_exiting
        if port + size > 0x10000:
            return True
        return any(self._bit_of_port(each) for each in range(port, port + size))

    def _bit_of_port(self, port: int) -> bool:
        page = self._fields[Field.IO_BITMAP_A if port < 0x8000 else Field.IO_BITMAP_B]
        return bool(self._read(page + (port & 0x7FFF) // 8, 1) >> port % 8 & 1)

    def _msr(self, msr: int, writes: bool) -> bool:
        if not self._primary.use_msr_bitmaps:
            return True
        if msr < 0x2000:
            at = 0
        elif 0xC000_0000 <= msr < 0xC000_2000:
            at = 1024
        else:
            return True
        index = msr & 0x1FFF
        page = self._fields[Field.MSR_BITMAP] + (2048 if writes else 0) + at
        return bool(self._read(page + index // 8, 1) >> index % 8 & 1)

    def _exception(self, vector: int, error: int) -> bool:
        """A page fault's bit is turned round when its error code does not match."""
        bit = bool(self._fields[Field.EXCEPTION_BITMAP] >> vector & 1)
        if vector != _PAGE_FAULT:
            return bit
        mask = self._fields[Field.PAGE_FAULT_ERROR_CODE_MASK]
        match = self._fields[Field.PAGE_FAULT_ERROR_CODE_MATCH]
        return bit == (error & mask == match)
