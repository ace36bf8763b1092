"""The virtio devices of a board, with what carries their interrupts, for those who look on."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from vmm.devices.platform import Board

if TYPE_CHECKING:
    from vmm.virtio.device import Transport, VirtioDevice


class VirtioEnd(NamedTuple):
    """A device and its transport."""

    device: "VirtioDevice"
    transport: "Transport"


def virtio_ends(board: Board) -> Iterator[VirtioEnd]:
    """Yield each virtio device: PCI's by slot, then those over MMIO."""
    place: Any
    for place in (*board.pci.functions.values(), *board.memory.devices()):
        device = getattr(place, "device", None)
        if device is not None and hasattr(place, "queue_interrupt"):
            yield VirtioEnd(device, place)
