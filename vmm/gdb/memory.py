"""Memory packets: m, M, x, X, and qSearch:memory."""

from typing import TYPE_CHECKING, Final

from vmm.gdb.packets import PACKET_SIZE

if TYPE_CHECKING:
    from vmm.gdb.stub import Answer, Stub

_BAD_ADDRESS: Final = b"E0e"
_MASK64: Final = (1 << 64) - 1
_SEARCH_CHUNK: Final = 1 << 16
_SEARCH_MAX: Final = 1 << 30


def _range(words: bytes) -> tuple[int, int]:
    at, _, size = words.partition(b",")
    return int(at, 16) & _MASK64, int(size, 16)


def _read(stub: "Stub", words: bytes, most: int) -> bytes | None:
    """Return what can be read; None if not even the first byte can."""
    address, size = _range(words)
    if size < 0:
        raise ValueError(size)
    data = stub.target.read(stub.vcpu, address, min(size, most))
    return data if data or not size else None


def read_hex(stub: "Stub", words: bytes) -> "Answer":
    """m ADDR,LENGTH"""
    data = _read(stub, words, PACKET_SIZE // 2)
    return _BAD_ADDRESS if data is None else data.hex().encode()


def read_binary(stub: "Stub", words: bytes) -> "Answer":
    """x ADDR,LENGTH: as newer gdb and rr ask, `b` and the bytes."""
    data = _read(stub, words, PACKET_SIZE // 2)
    return _BAD_ADDRESS if data is None else b"b" + data


def write_hex(stub: "Stub", words: bytes) -> "Answer":
    """M ADDR,LENGTH:HEX"""
    head, _, text = words.partition(b":")
    return _write(stub, head, bytes.fromhex(text.decode("ascii")))


def write_binary(stub: "Stub", words: bytes) -> "Answer":
    """X ADDR,LENGTH:BYTES; of no length it asks whether this packet is known."""
    head, _, data = words.partition(b":")
    return _write(stub, head, data)


def _write(stub: "Stub", head: bytes, data: bytes) -> "Answer":
    address, size = _range(head)
    if size != len(data):
        raise ValueError(size)
    if data:
        stub.target.write(stub.vcpu, address, data)
    return b"OK"


def search(stub: "Stub", words: bytes) -> "Answer":
    """qSearch:memory:ADDR;LENGTH;BYTES: `1,ADDR` of the first, or `0`."""
    at, length, pattern = words.split(b";", 2)
    address, left = int(at, 16) & _MASK64, min(int(length, 16), _SEARCH_MAX)
    if not pattern or left < 0:
        raise ValueError(left)
    carried = b""
    while left > 0:
        part = min(left, _SEARCH_CHUNK)
        data = stub.target.read(stub.vcpu, address, part)
        found = (carried + data).find(pattern)
        if found >= 0:
            return b"1,%x" % (address - len(carried) + found & _MASK64)
        if len(data) < part:
            return _BAD_ADDRESS
        carried = (carried + data)[-(len(pattern) - 1) :] if len(pattern) > 1 else b""
        address, left = address + part & _MASK64, left - part
    return b"0"
