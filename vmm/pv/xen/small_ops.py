"""Hypercalls of a few lines: console_io, physdev_op, and what a domU is refused."""

from collections.abc import Callable
from struct import Struct
from typing import Final

from hwmodel.cpu.xen import XenEngine
from vmm.pv.xen.abi import Errno
from vmm.pv.xen.guest import Caller, is_guests

_SET_IOPL, _SET_IOBITMAP = 6, 7
_BITMAP: Final = Struct("<QI4x")
_PORTS: Final = 1 << 16


class ConsoleIo:
    """HYPERVISOR_console_io: Xen's own console, which a debug build of it lets a domU write to."""

    def __init__(self, output: Callable[[bytes], None]) -> None:
        """What is written goes to `output`."""
        self._output: Final = output

    def __call__(self, cpu: Caller, arguments: tuple[int, ...]) -> int:
        """CONSOLEIO_write (count, bytes) and CONSOLEIO_read, which finds nothing."""
        command, count, at = arguments[0] & 0xFFFF_FFFF, arguments[1] & 0xFFFF_FFFF, arguments[2]
        if command == 0:
            for done in range(0, min(count, 1 << 16), 4096):
                self._output(cpu.read(at + done, min(4096, count - done)))
            return 0
        return 0 if command == 1 else -Errno.NOSYS


class PhysdevOp:
    """HYPERVISOR_physdev_op, as far as a guest without devices needs it."""

    def __init__(self, engine: XenEngine) -> None:
        """I/O privilege is the engine's affair."""
        self._engine: Final = engine

    def __call__(self, cpu: Caller, arguments: tuple[int, ...]) -> int:
        """set_iopl and set_iobitmap; interrupts of devices are not a domU's."""
        command, at = arguments[0] & 0xFFFF_FFFF, arguments[1]
        if command == _SET_IOPL:
            iopl = int.from_bytes(cpu.read(at, 4), "little")
            if iopl > 3:
                return -Errno.INVAL
            self._engine.set_iopl(cpu.index, iopl)
            return 0
        if command == _SET_IOBITMAP:
            linear, ports = cpu.unpack(_BITMAP, at)
            if ports > _PORTS or (ports and not is_guests(linear, (ports + 7) // 8)):
                return -Errno.INVAL
            self._engine.set_io_bitmap(cpu.index, linear, ports)
            return 0
        return -Errno.NOSYS if command > 31 else -Errno.PERM


def not_permitted(_cpu: Caller, _arguments: tuple[int, ...]) -> int:
    """What only the first domain may."""
    return -Errno.PERM


def not_offered(_cpu: Caller, _arguments: tuple[int, ...]) -> int:
    """What this hypervisor was built without."""
    return -Errno.NOSYS
