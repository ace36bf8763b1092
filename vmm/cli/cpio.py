"""An initramfs archive: cpio's "newc" format (Linux, "initramfs buffer format").

The same content gives the same bytes: no times, no owners, inode numbers in order.
"""

import stat


class Archive:
    """An archive being written; parents of a path must be added before it."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._inode = 0

    def folder(self, name: str) -> None:
        """Add a folder."""
        self._add(name, stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a file."""
        self._add(name, stat.S_IFREG | mode, data)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name: str, major: int, minor: int) -> None:
        """Add a character device."""
        self._add(name, stat.S_IFCHR | 0o600, b"", (major, minor))

    def finished(self) -> bytes:
        """Return the archive with its trailer; nothing can be added afterwards."""
        self._add("TRAILER!!!", 0, b"")
        return bytes(self._data)

    def _add(self, name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        path = name.encode() + b"\0"
        owner, links, time, check = (0, 0), 1, 0, 0
        fields = (
            self._inode, mode, *owner, links, time, len(data), 0, 0, *device, len(path), check,
        )  # fmt: skip
        self._data += b"070701" + b"".join(b"%08X" % field for field in fields) + path
        self._data += bytes(-len(self._data) % 4) + data
        self._data += bytes(-len(self._data) % 4)
