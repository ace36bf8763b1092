"""What an entry check looks at: VMCS fields, capabilities, a little machine memory.

Part of the readable twin of the C engine's entry checks; imports nothing of the C module.
"""

from collections.abc import Callable, Mapping
from typing import Final

from hwmodel.arch.controls import (
    EntryControls,
    ExitControls,
    PinBased,
    Primary,
    Secondary,
    Tertiary,
)
from hwmodel.arch.events import AccessRights, Interruptibility
from hwmodel.arch.registers import Cr0, Cr4, Efer, Rflags
from hwmodel.arch.vmcs import Field
from hwmodel.vmx.capabilities import Capabilities

ReadMemory = Callable[[int, int], int]
SEGMENTS: Final = ("ES", "CS", "SS", "DS", "FS", "GS")
DATA_SEGMENTS: Final = ("DS", "ES", "FS", "GS")
PAT_TYPES: Final = frozenset({0, 1, 4, 5, 6, 7})
_VALID: Final = 1 << 31


class EntryView:
    """The state that an entry is about to use; `seen` collects the fields that were looked at."""

    def __init__(
        self,
        fields: Mapping[Field, int],
        caps: Capabilities,
        read: ReadMemory,
        *,
        current: int = -1,
    ) -> None:
        """View `fields`; `read(hpa, size)` gives machine memory, `current` is the VMCS's address.

        Memory that is not there reads as ones, as an unclaimed bus does.
        """
        self._fields, self.caps, self.read, self.current = fields, caps, read, current
        self.seen: dict[Field, int] = {}

    def __getitem__(self, field: Field) -> int:
        value = self._fields[field]
        self.seen[field] = value
        return value

    @property
    def pin(self) -> PinBased:
        """The pin-based controls."""
        return PinBased(self[Field.PIN_BASED_VM_EXEC_CONTROL])

    @property
    def primary(self) -> Primary:
        """The primary processor-based controls."""
        return Primary(self[Field.CPU_BASED_VM_EXEC_CONTROL])

    @property
    def secondary(self) -> Secondary:
        """The secondary controls; all 0 unless they are activated."""
        if not self.primary.activate_secondary_controls:
            return Secondary(0)
        return Secondary(self[Field.SECONDARY_VM_EXEC_CONTROL])

    @property
    def tertiary(self) -> Tertiary:
        """The tertiary controls; all 0 unless they are activated."""
        if not self.primary.activate_tertiary_controls:
            return Tertiary(0)
        return Tertiary(self[Field.TERTIARY_VM_EXEC_CONTROL])

    @property
    def exit(self) -> ExitControls:
        """The VM-exit controls."""
        return ExitControls(self[Field.VM_EXIT_CONTROLS])

    @property
    def entry(self) -> EntryControls:
        """The VM-entry controls."""
        return EntryControls(self[Field.VM_ENTRY_CONTROLS])

    @property
    def cr0(self) -> Cr0:
        """The guest's CR0."""
        return Cr0(self[Field.GUEST_CR0])

    @property
    def cr4(self) -> Cr4:
        """The guest's CR4."""
        return Cr4(self[Field.GUEST_CR4])

    @property
    def efer(self) -> Efer:
        """The guest's IA32_EFER."""
        return Efer(self[Field.GUEST_IA32_EFER])

    @property
    def rflags(self) -> Rflags:
        """The guest's RFLAGS."""
        return Rflags(self[Field.GUEST_RFLAGS])

    @property
    def blocking(self) -> Interruptibility:
        """The guest's interruptibility state."""
        return Interruptibility(self[Field.GUEST_INTERRUPTIBILITY_INFO])

    @property
    def is_v8086(self) -> bool:
        """Whether the guest will be in virtual-8086 mode."""
        return self.rflags.vm

    @property
    def unrestricted(self) -> bool:
        """Whether the guest may run without paging or protection."""
        return self.secondary.unrestricted_guest

    def rights(self, segment: str) -> AccessRights:
        """A guest segment's access rights."""
        return AccessRights(self[Field[f"GUEST_{segment}_AR_BYTES"]])

    def selector(self, segment: str) -> int:
        """A guest segment's selector."""
        return self[Field[f"GUEST_{segment}_SELECTOR"]]

    def base(self, segment: str) -> int:
        """A guest segment's base."""
        return self[Field[f"GUEST_{segment}_BASE"]]

    def limit(self, segment: str) -> int:
        """A guest segment's limit."""
        return self[Field[f"GUEST_{segment}_LIMIT"]]

    def is_usable(self, segment: str) -> bool:
        """Whether the segment register holds a segment."""
        return not self.rights(segment).unusable

    @property
    def injects(self) -> int | None:
        """The interruption information of the event to inject; None if there is none."""
        info = self[Field.VM_ENTRY_INTR_INFO_FIELD]
        return info if info & _VALID else None

    @property
    def injected_type(self) -> int | None:
        """Its interruption type."""
        info = self.injects
        return None if info is None else info >> 8 & 7

    def is_address(self, value: int, *, aligned: int) -> bool:
        """Whether `value` is a physical address of this width, aligned to that many bits."""
        return value >> self.caps.physical_bits == 0 and value & (1 << aligned) - 1 == 0

    def is_canonical(self, value: int) -> bool:
        """Whether the bits from the linear-address width on repeat the one below them."""
        top = value >> self.caps.linear_bits - 1
        return top in (0, (1 << 65 - self.caps.linear_bits) - 1)

    def is_msr_area(self, address: int, count: int) -> bool:
        """Whether `count` entries of 16 bytes at `address` are where a list may stand."""
        if count == 0:
            return True
        last = address + count * 16 - 1
        return self.is_address(address, aligned=4) and last >> self.caps.physical_bits == 0


def is_pat(value: int) -> bool:
    """Whether each byte of IA32_PAT is a memory type: 0, 1, 4, 5, 6 or 7."""
    return all(value >> shift & 0xFF in PAT_TYPES for shift in range(0, 64, 8))


def is_granular(limit: int, rights: AccessRights) -> bool:
    """Whether the granularity bit fits the limit.

    A limit whose low 12 bits are not all 1 has G = 0, one with bits in 31:20 has G = 1.
    """
    if limit & 0xFFF != 0xFFF and rights.g:
        return False
    return not (limit >> 20 and not rights.g)


def has_reserved_rights(rights: AccessRights) -> bool:
    """Whether bits 11:8 or 31:17 of the access rights are not 0."""
    return bool(rights & 0xFFFE_0F00)
