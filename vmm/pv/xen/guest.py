"""A virtual CPU of a PV guest, as hypercalls see it: its memory by linear address, its sleep."""

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any, Protocol

from hwmodel.mem.fault import Fault
from hwmodel.pcpu import Pcpu
from hwmodel.vmx.state import Vmcs
from vmm.pv.xen.abi import HOLE_END, HOLE_START, PAGE


class BadPointerError(Exception):
    """The guest passed a pointer that it may not use: -EFAULT."""


class Caller(Protocol):
    """A virtual CPU of any kind of guest that makes a hypercall. All raise BadPointerError."""

    @property
    def index(self) -> int:
        """Its number."""

    def read(self, linear: int, size: int) -> bytes:
        """Return guest memory."""

    def write(self, linear: int, data: bytes) -> None:
        """Write guest memory."""

    def unpack(self, layout: Struct, linear: int) -> tuple[Any, ...]:
        """Read a structure."""


@dataclass(frozen=True, slots=True)
class GuestCpu:
    """One virtual CPU. `wake` ends a sleep that something may end; `park` and `unpark` are down and
    up; `yields` gives the turn away.
    """

    index: int
    pcpu: Pcpu
    vmcs: Vmcs
    wake: Callable[[], None]
    park: Callable[[], None]
    unpark: Callable[[], None]
    yields: Callable[[], None]

    def read(self, linear: int, size: int) -> bytes:
        """Return guest memory. Raises BadPointerError."""
        if not is_guests(linear, size):
            raise BadPointerError
        data = self.pcpu.read(self.vmcs, linear, size)
        if isinstance(data, Fault):
            raise BadPointerError
        return data

    def write(self, linear: int, data: bytes) -> None:
        """Write guest memory. Raises BadPointerError."""
        fault = not is_guests(linear, len(data)) or self.pcpu.write(self.vmcs, linear, data)
        if fault:
            raise BadPointerError

    def unpack(self, layout: Struct, linear: int) -> tuple[Any, ...]:
        """Read a structure."""
        return layout.unpack(self.read(linear, layout.size))

    def machine_address(self, linear: int) -> int | None:
        """Return where the guest's memory lies, None where nothing is mapped."""
        if not is_guests(linear, 1):
            return None
        found = self.pcpu.translate(self.vmcs, linear)
        return None if isinstance(found, Fault) else found


def is_guests(linear: int, size: int) -> bool:
    """Xen's access_ok: outside the hypervisor's hole, and no more than a guest would copy."""
    end = linear + size
    return end <= 1 << 64 and size <= 256 * PAGE and (end <= HOLE_START or linear >= HOLE_END)
