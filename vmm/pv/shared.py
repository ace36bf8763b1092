"""A structure that guest and hypervisor share, at a guest-physical address that the guest chose."""

from dataclasses import dataclass

from vmm.memory.guest import GuestMemory


@dataclass(frozen=True, slots=True)
class SharedArea:
    """`size` bytes at guest-physical `gpa`: what is not RAM reads zero and is not written.

    Guests choose addresses: none of them may be an error of ours.
    """

    memory: GuestMemory
    gpa: int
    size: int

    def is_memory(self) -> bool:
        """Whether all of it is RAM."""
        return self.memory.hpa(self.gpa, self.size) is not None

    def read(self, offset: int, size: int) -> int:
        """Return a little-endian number of `size` bytes."""
        if not self.is_memory():
            return 0
        return int.from_bytes(self.memory.read(self.gpa + offset, size), "little")

    def load(self, offset: int, size: int) -> bytes:
        """Return `size` bytes."""
        return self.memory.read(self.gpa + offset, size) if self.is_memory() else bytes(size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Store a little-endian number of `size` bytes."""
        self.store(offset, value.to_bytes(size, "little"))

    def store(self, offset: int, data: bytes) -> None:
        """Store bytes."""
        if self.is_memory():
            self.memory.write(self.gpa + offset, data)

    def update(self, version: int, offset: int, data: bytes) -> None:
        """Store `data` at `offset`, its 32-bit version at offset `version` odd meanwhile.

        The readers of a version protocol take a copy between two equal even versions.
        """
        before = self.read(version, 4)
        odd = before + 1 | 1
        self.write(version, 4, odd & 0xFFFF_FFFF)
        self.store(offset, data)
        self.write(version, 4, odd + 1 & 0xFFFF_FFFF)
