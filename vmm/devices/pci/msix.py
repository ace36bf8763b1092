"""MSI-X: interrupts as memory writes, one table entry a vector (PCI 3.0, "MSI-X Capability").

The table lies at offset 0 of a memory BAR of its own, the pending bits behind it.
"""

from collections.abc import Callable

from vmm.devices.pci.bar import Bar

ENTRY = 16
MAX_VECTORS = 2048
CONTROL = 2
"""Offset of message control in the capability."""
ENABLED, FUNCTION_MASKED = 1 << 15, 1 << 14
VECTOR_MASKED = 1
_MASK_AT = 12  # offset of vector control in an entry

SendMessage = Callable[[int, int], None]
"""send(address, data): an upstream write of four bytes."""


class MsiX:
    """The table, the pending bits, and who may send."""

    def __init__(self, vectors: int, control: Callable[[], int], send: SendMessage) -> None:
        """`control` reads the message control word; `send` writes upstream."""
        assert 0 < vectors <= MAX_VECTORS, vectors
        self.vectors = vectors
        self.pending_at = ENTRY * vectors + -ENTRY * vectors % 0x800
        self._control = control
        self._send = send
        self._table = bytearray(self.pending_at)
        for vector in range(vectors):
            self._table[vector * ENTRY + _MASK_AT] = VECTOR_MASKED
        self._pending = 0

    def bar(self) -> Bar:
        """Return the BAR that shows table and pending bits."""
        size = max(1 << (self.pending_at + 0x800 - 1).bit_length(), 4096)
        return Bar(size, self._read, self._write, name="msix")

    def body(self, bar: int) -> tuple[bytes, bytes]:
        """Return the capability behind ID and link, and its write mask; `bar` is the BAR's number.

        Message control (table size - 1), table offset and BAR, pending bits' offset and BAR.
        """
        words = ((self.vectors - 1, 2), (bar, 4), (self.pending_at | bar, 4))
        body = b"".join(value.to_bytes(size, "little") for value, size in words)
        return body, (ENABLED | FUNCTION_MASKED).to_bytes(2, "little")

    def is_enabled(self) -> bool:
        """Whether the guest uses MSI-X instead of INTx."""
        return bool(self._control() & ENABLED)

    def notify(self, vector: int) -> bool:
        """Interrupt by `vector`, or note it while masked. False if MSI-X is off: use INTx.

        A vector without an entry goes nowhere.
        """
        if not self.is_enabled():
            return False
        if 0 <= vector < self.vectors:
            self._pending |= 1 << vector
            self._flush(vector)
        return True

    def flush(self) -> None:
        """Send what waits and may go: after message control has changed."""
        waiting = self._pending
        while waiting:
            lowest = waiting & -waiting
            self._flush(lowest.bit_length() - 1)
            waiting ^= lowest

    def save(self) -> tuple[bytes, bytes]:
        """Return table and pending bits."""
        return bytes(self._table), self._pending.to_bytes(MAX_VECTORS // 8, "little")

    def restore(self, table: bytes, pending: bytes) -> None:
        """Take over what save() returned."""
        self._table[:] = table
        self._pending = int.from_bytes(pending, "little")

    def _flush(self, vector: int) -> None:
        if self._control() & (ENABLED | FUNCTION_MASKED) != ENABLED:
            return
        entry = self._table[vector * ENTRY : (vector + 1) * ENTRY]
        if entry[_MASK_AT] & VECTOR_MASKED or not self._pending >> vector & 1:
            return
        self._pending &= ~(1 << vector)
        self._send(int.from_bytes(entry[:8], "little"), int.from_bytes(entry[8:12], "little"))

    def _read(self, offset: int, size: int) -> int:
        if offset < self.pending_at:
            return int.from_bytes(self._table[offset : offset + size], "little")
        return self._pending >> 8 * (offset - self.pending_at) & (1 << 8 * size) - 1

    def _write(self, offset: int, size: int, value: int) -> None:
        end = min(offset + size, ENTRY * self.vectors)
        if offset >= end:
            return  # the pending bits and what lies between are read-only
        self._table[offset:end] = value.to_bytes(size, "little")[: end - offset]
        for vector in range(offset // ENTRY, (end - 1) // ENTRY + 1):
            at = vector * ENTRY + _MASK_AT
            self._table[at : at + 4] = bytes((self._table[at] & VECTOR_MASKED, 0, 0, 0))
            self._flush(vector)
