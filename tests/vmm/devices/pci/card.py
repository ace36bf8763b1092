"""A PCI function to try things on."""

from vmm.devices.device import Untimed
from vmm.devices.pci.bar import Bar, BarKind
from vmm.devices.pci.function import Identity, PciFunction


class Card(Untimed, PciFunction):
    """A memory BAR, a port BAR, a wide one, four vectors; remembers what reached it."""

    def __init__(self, name: str = "card", *, vectors: int = 4) -> None:
        self.seen: list[tuple[str, int, int, int]] = []
        bars = {
            0: self.bar("mem", 0x1000, BarKind.MEMORY32),
            1: self.bar("io", 0x20, BarKind.IO),
            2: self.bar("wide", 0x4000, BarKind.MEMORY64),
        }
        super().__init__(name, Identity(0x1AF4, 0x10F0, 0x0C8001, 3, 0x1234, 0x5678), bars,
                         vectors=vectors)  # fmt: skip

    def bar(self, name: str, size: int, kind: BarKind) -> Bar:
        def read(offset: int, width: int) -> int:
            self.seen.append((name, offset, width, -1))
            return 0x1122_3344_5566_7788

        def write(offset: int, width: int, value: int) -> None:
            self.seen.append((name, offset, width, value))

        return Bar(size, read, write, kind)
