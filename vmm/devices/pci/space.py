"""Configuration space as bytes, each with a mask of the bits that the guest can change."""

from collections.abc import Callable
from dataclasses import dataclass

from vmm.devices.pci.registers import CONFIG_SIZE, FIRST_CAPABILITY, Capability, Header, Status

ReadHook = Callable[[int, int], None]
WriteHook = Callable[[int, int], None]
"""hook(offset in the capability, size): called before bytes are read, after they are written."""


def _ignore(_offset: int, _size: int) -> None:
    """Nobody looks."""


@dataclass(frozen=True, slots=True)
class _Watch:
    start: int
    end: int
    on_read: ReadHook
    on_write: WriteHook


class ConfigSpace:
    """256 bytes; what lies behind them reads as all ones, as where no function is."""

    def __init__(self) -> None:
        """All zero, nothing writable, no capability."""
        self.bytes = bytearray(CONFIG_SIZE)
        self._mask = bytearray(CONFIG_SIZE)
        self._watches: list[_Watch] = []
        self._link = int(Header.CAPABILITIES)  # the byte that will name the next capability
        self._free = FIRST_CAPABILITY

    def __getitem__(self, place: tuple[int, int]) -> int:
        """`space[offset, size]`: a little-endian number, no hook called."""
        offset, size = place
        return int.from_bytes(self.bytes[offset : offset + size], "little")

    def __setitem__(self, place: tuple[int, int], value: int) -> None:
        """`space[offset, size] = value`: our own side, no mask, no hook."""
        offset, size = place
        self.bytes[offset : offset + size] = value.to_bytes(size, "little")

    def allow(self, offset: int, size: int, mask: int) -> None:
        """Let the guest change the bits of `mask` in the `size` bytes at `offset`."""
        self._mask[offset : offset + size] = mask.to_bytes(size, "little")

    def add_capability(
        self,
        identity: Capability,
        body: bytes,
        writable: bytes = b"",
        on_read: ReadHook = _ignore,
        on_write: WriteHook = _ignore,
    ) -> int:
        """Append a capability: `body` follows the two bytes of ID and link; return its offset.

        `writable` is a mask for the start of `body`. The hooks' offsets count from the ID byte.
        """
        at, end = self._free, self._free + 2 + len(body)
        assert end <= CONFIG_SIZE, "too many capabilities"
        self.bytes[self._link] = at
        self.bytes[at : at + 2] = bytes((identity, 0))
        self.bytes[at + 2 : end] = body
        self._mask[at + 2 : at + 2 + len(writable)] = writable
        self._link, self._free = at + 1, end + -end % 4
        self[Header.STATUS, 2] = self[Header.STATUS, 2] | Status.CAPABILITIES
        self._watches.append(_Watch(at, end, on_read, on_write))
        return at

    def read(self, offset: int, size: int) -> int:
        """The guest reads."""
        if offset + size > CONFIG_SIZE:
            return (1 << 8 * size) - 1
        for watch in self._watches:
            if offset < watch.end and watch.start < offset + size:
                watch.on_read(offset - watch.start, size)
        return self[offset, size]

    def write(self, offset: int, size: int, value: int) -> None:
        """The guest writes; read-only bits stay."""
        if offset + size > CONFIG_SIZE:
            return
        mask = int.from_bytes(self._mask[offset : offset + size], "little")
        self[offset, size] = self[offset, size] & ~mask | value & mask
        for watch in self._watches:
            if offset < watch.end and watch.start < offset + size:
                watch.on_write(offset - watch.start, size)
