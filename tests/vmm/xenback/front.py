"""A front end in plain Python: machine memory, a grant table, xenstore, and who listens."""

import struct
from types import SimpleNamespace
from typing import Any, cast

from vmm.pv.xen.events import Channel, EventChannels, Status
from vmm.pv.xen.grants import GrantTable
from vmm.pv.xen.shared import Shared
from vmm.pv.xen.store import Store
from vmm.xenback.xenbus import Means

PAGE, FRAMES = 4096, 64
SHARED_INFO, INFO, GRANTS, FREE = 0, 1, 2, 40
READ_ONLY, READING, WRITING = 4, 8, 16


class Engine:
    """Holds frames; frame 63 is none that a back end may have."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}

    def vcpu_info(self, _vcpu: int) -> int:
        return INFO * PAGE

    def hold(self, mfn: int, *, writable: bool) -> bool:
        if not FREE <= mfn < FRAMES - 1:
            return False
        self.held[mfn] = self.held.get(mfn, 0) + 1
        return True

    def drop(self, mfn: int, *, writable: bool) -> None:
        self.held[mfn] -= 1

    def address(self, mfn: int) -> int:
        return mfn * PAGE


class World:
    """What a front end has to do with."""

    def __init__(self) -> None:
        self.ram = memoryview(bytearray(FRAMES * PAGE))
        memory: Any = SimpleNamespace(
            ram=SimpleNamespace(view=self.ram), wrote=lambda at, size: None
        )
        self.engine = Engine()
        engine = cast("Any", self.engine)
        self.shared = Shared(memory)
        self.ports = EventChannels(self.shared, engine, SHARED_INFO, lambda vcpu: None)
        self.grants = GrantTable(self.shared, engine, GRANTS)
        self.store = Store()
        self.means = Means(self.store, self.ports, self.grants, self.shared)
        self.clock: Any = SimpleNamespace(
            now=0, frequency=1_000_000_000, cycles_of_ns=lambda ns: ns
        )

    def grant(self, reference: int, mfn: int, flags: int = 1, domain: int = 0) -> None:
        """Write a grant of version 1."""
        entry = struct.pack("<HHI", flags, domain, mfn)
        self.shared.store(GRANTS * PAGE + 8 * reference, entry)

    def flags(self, reference: int) -> int:
        return self.shared.read(GRANTS * PAGE + 8 * reference, 2)

    def page(self, mfn: int, size: int = PAGE, offset: int = 0) -> bytes:
        return self.shared.load(mfn * PAGE + offset, size)

    def open_port(self) -> int:
        return self.ports.allocate(Channel(Status.UNBOUND))

    def says(self, path: str, **values: object) -> None:
        """Write keys; the state comes last, as a front end writes it."""
        for key, value in values.items():
            self.store.write(f"{path}/{key.replace('_', '-')}", str(value).encode())

    def held(self) -> dict[int, int]:
        """The frames that a back end has."""
        return {mfn: count for mfn, count in self.engine.held.items() if count}
