"""The readable twin of the virtual APIC (cext/apicv.c): priorities, interrupts, their ends.

The sentences are those of "APIC Virtualization and Virtual Interrupts", with virtual-interrupt
delivery on. Vectors stand in sets here, in the virtual-APIC page there.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from hwmodel.arch.exits import ExitReason

SELF_IPI = 0x3F0
"""The offset of the x2APIC register, in the qualification of an APIC-write exit."""


@dataclass(frozen=True, slots=True)
class ApicExit:
    """A trap-like exit: the instruction that caused it is complete."""

    reason: ExitReason
    qualification: int


@dataclass(slots=True)
class VirtualApicTwin:
    """VTPR, VPPR, VISR, VIRR and the guest interrupt status of one virtual CPU."""

    tpr: int = 0
    ppr: int = 0
    in_service: set[int] = field(default_factory=set)
    requested: set[int] = field(default_factory=set)
    rvi: int = 0
    svi: int = 0
    eoi_exits: frozenset[int] = frozenset()
    """The EOI-exit bitmap."""
    is_recognized: bool = False
    """Whether a virtual interrupt waits for the guest's interrupt flag."""

    def enter(self) -> None:
        """VM entry: PPR virtualization, then evaluation of pending virtual interrupts."""
        self._virtualize_ppr()
        self._evaluate()

    def write_tpr(self, value: int) -> None:
        """TPR virtualization: PPR virtualization, then evaluation; the threshold is not asked."""
        self.tpr = value & 0xFF
        self._virtualize_ppr()
        self._evaluate()

    def self_ipi(self, vector: int) -> ApicExit | None:
        """Self-IPI virtualization, of the x2APIC register; vectors below 16 are software's."""
        if vector < 16:
            return ApicExit(ExitReason.APIC_WRITE, SELF_IPI)
        self._request(vector)
        return None

    def post(self, vectors: Iterable[int]) -> None:
        """Posted-interrupt processing: everything posted is requested."""
        for vector in vectors:
            self._request(vector)

    def end(self) -> ApicExit | None:
        """EOI virtualization: the vector SVI is out of service; its bit may ask for an exit."""
        vector = self.svi
        self.in_service.discard(vector)
        self.svi = max(self.in_service, default=0)
        self._virtualize_ppr()
        exits = vector in self.eoi_exits
        self._evaluate()
        return ApicExit(ExitReason.EOI_INDUCED, vector) if exits else None

    def deliver(self) -> int | None:
        """Virtual-interrupt delivery, where the guest can take one: return its vector."""
        if not self.is_recognized:
            return None
        vector = self.rvi
        self.in_service.add(vector)
        self.svi = vector
        self.ppr = vector & 0xF0
        self.requested.discard(vector)
        self.rvi = max(self.requested, default=0)
        self.is_recognized = False
        self._evaluate()
        return vector

    def _request(self, vector: int) -> None:
        self.requested.add(vector)
        self.rvi = max(self.rvi, vector)
        self._evaluate()

    def _virtualize_ppr(self) -> None:
        """The higher class of VTPR and SVI; of SVI without its low four bits."""
        self.ppr = self.tpr if self.tpr >> 4 >= self.svi >> 4 else self.svi & 0xF0

    def _evaluate(self) -> None:
        self.is_recognized = self.rvi >> 4 > self.ppr >> 4
