"""Which device is at an address, by what the trace's header says."""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from vmm.observe.trace.header import Place

LOCAL_APIC: Final = Place("memory", 0xFEE0_0000, 0xFEE0_0FFF, "lapic")
"""Where each processor finds its own, unless it was moved."""


class Places:
    """The two address spaces."""

    def __init__(self, places: Iterable[Place]) -> None:
        """Sort them; a local APIC is in front of every processor."""
        known = [*places, LOCAL_APIC]
        self._buses: Final = {
            bus: sorted((p for p in known if p.bus == bus), key=lambda place: place.first)
            for bus in ("port", "memory")
        }
        self._firsts: Final = {
            bus: [place.first for place in found] for bus, found in self._buses.items()
        }

    def port(self, port: int) -> str:
        """Name the device at a port, "none" where there is none."""
        return self._at("port", port)

    def memory(self, address: int) -> str:
        """Name the device at a guest-physical address."""
        return self._at("memory", address)

    def _at(self, bus: str, address: int) -> str:
        found = bisect_right(self._firsts[bus], address) - 1
        if found < 0 or self._buses[bus][found].last < address:
            return "none"
        return self._buses[bus][found].device
