"""A FUSE client over the device's queues: what a guest kernel sends, by linux/fuse.h."""

import errno
import os
import struct
from pathlib import Path

from tests.vmm.virtio.driven import Driven
from vmm.share.fuse import Opcode
from vmm.share.server import FuseServer
from vmm.virtio.fs import Fs

ROOT = 1


class RefusedError(OSError):
    """The server answered with an error."""


class Client:
    """Mounts a folder; methods are FUSE requests, errors are raised as OSError."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        server = FuseServer(path, readonly=readonly, option="--share")
        self.driven = Driven(lambda context: Fs("fs", context, server, "tag"), memory=32 << 20)
        self.unique = 0
        self.server = server
        self.init()

    def ask(self, opcode: int, node: int = ROOT, body: bytes = b"", room: int = 4096) -> bytes:
        self.unique += 2
        head = struct.pack("<IIQQIIIHH", 40 + len(body), opcode, self.unique, node, 0, 0, 1, 0, 0)
        self.driven.memory.top = 0x20000
        reply = self.driven.ask(1, [head, body] if body else [head], 16 + room)
        size, error, unique = struct.unpack_from("<IiQ", reply)
        assert unique == self.unique
        assert size == len(reply)
        if error:
            raise RefusedError(-error, os.strerror(-error))
        return reply[16:]

    def init(self, major: int = 7, minor: int = 37) -> bytes:
        return self.ask(Opcode.INIT, 0, struct.pack("<IIII", major, minor, 1 << 20, 0xFFFFFFFF))

    def look_up(self, name: bytes, parent: int = ROOT) -> int:
        return int(struct.unpack_from("<Q", self.ask(Opcode.LOOKUP, parent, name + b"\0"))[0])

    def walk(self, path: str) -> int:
        node = ROOT
        for name in path.split("/"):
            node = self.look_up(name.encode(), node)
        return node

    def attributes(self, node: int) -> dict[str, int]:
        data = self.ask(Opcode.GETATTR, node, bytes(16))
        names = "ino size blocks atime mtime ctime atimensec mtimensec ctimensec mode nlink uid gid"
        values = struct.unpack_from("<6Q7I", data, 16)
        return dict(zip(names.split(), values, strict=True))

    def set_attributes(self, node: int, valid: int, **values: int) -> None:
        names = "size lock atime mtime ctime atimensec mtimensec ctimensec mode u4 uid gid u5"
        fields = [values.get(name, 0) for name in names.split()]
        self.ask(Opcode.SETATTR, node, struct.pack("<IIQ5Q8I", valid, 0, 0, *fields))

    def open(self, node: int, flags: int = os.O_RDONLY, opcode: int = Opcode.OPEN) -> int:
        answer = self.ask(opcode, node, struct.pack("<II", flags, 0))
        return int(struct.unpack_from("<Q", answer)[0])

    def create(self, name: bytes, flags: int = os.O_RDWR, mode: int = 0o644) -> tuple[int, int]:
        body = struct.pack("<IIII", flags, mode, 0o022, 0) + name + b"\0"
        answer = self.ask(Opcode.CREATE, ROOT, body)
        return struct.unpack_from("<Q", answer)[0], struct.unpack_from("<Q", answer, 128)[0]

    def read(self, handle: int, offset: int, size: int) -> bytes:
        body = struct.pack("<QQIIQII", handle, offset, size, 0, 0, 0, 0)
        return self.ask(Opcode.READ, ROOT, body, size)

    def write(self, handle: int, offset: int, data: bytes) -> int:
        body = struct.pack("<QQIIQII", handle, offset, len(data), 0, 0, 0, 0)
        return int(struct.unpack_from("<I", self.ask(Opcode.WRITE, ROOT, body + data))[0])

    def release(self, handle: int, opcode: int = Opcode.RELEASE) -> None:
        self.ask(opcode, ROOT, struct.pack("<QIIQ", handle, 0, 0, 0))

    def list(self, node: int = ROOT, *, plus: bool = False, room: int = 512) -> dict[bytes, int]:
        """Return inode by name, read in several requests."""
        handle = self.open(node, opcode=Opcode.OPENDIR)
        found: dict[bytes, int] = {}
        offset, opcode = 0, Opcode.READDIRPLUS if plus else Opcode.READDIR
        while True:
            body = struct.pack("<QQIIQII", handle, offset, room, 0, 0, 0, 0)
            data = self.ask(opcode, node, body, room)
            if not data:
                break
            while data:
                data = data[128 if plus else 0 :]
                inode, offset, length, _ = struct.unpack_from("<QQII", data)
                found[data[24 : 24 + length]] = inode
                data = data[24 + length + (-length) % 8 :]
        self.release(handle, Opcode.RELEASEDIR)
        return found


def name_of(error: OSError) -> str:
    return errno.errorcode[error.errno or 0]
