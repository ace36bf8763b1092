"""kallsyms, in each order of the tables that Linux has had; the judge is who wrote them."""

import struct

import pytest

from vmm.symbols.kallsyms import read_kallsyms

BASE = 0xFFFF_FFFF_8100_0000


def name_of(number: int) -> str:
    return f"{'TtDb'[number % 4]}sym_{number}_{'x' * (number % 7 * 25)}"


def aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def tokens() -> list[bytes]:
    """Every byte is a token of its own; five others abbreviate."""
    table = [bytes((n,)) if 32 < n < 127 else b"" for n in range(256)]
    for at, text in enumerate((b"sym_", b"xxxxx", b"xx", b"Tsym_", b"_x")):
        table[128 + at] = text
    return table


def compress(name: str) -> bytes:
    out, rest = bytearray(), name.encode()
    longest = sorted((t for t in tokens() if len(t) > 1), key=len, reverse=True)
    while rest:
        part = next((t for t in longest if rest.startswith(t)), rest[:1])
        out.append(tokens().index(part))
        rest = rest[len(part) :]
    return bytes(out)


def lengths(data: bytes) -> bytes:
    size = len(data)
    return (bytes((size,)) if size < 128 else bytes((size & 0x7F | 0x80, size >> 7))) + data


def tables(count: int, order: str, percpu: bool) -> bytes:
    names, markers = b"", []
    for number in range(count):
        if number % 256 == 0:
            markers.append(len(names))
        names += lengths(compress(name_of(number)))
    offsets = [16 * n for n in range(count)]
    stored = [-1 - o for o in offsets] if percpu else offsets
    indexes, at = [], 0
    for token in tokens():
        indexes.append(at)
        at += len(token) + 1
    parts = {
        "offsets": struct.pack(f"<{count}i", *stored),
        "base": struct.pack("<Q", BASE),
        "count": struct.pack("<I", count),
        "names": names,
        "markers": struct.pack(f"<{len(markers)}I", *markers),
        "seqs": b"".join((n * 7919 % count).to_bytes(3, "big") for n in range(count)),
        "tokens": b"".join(token + b"\0" for token in tokens()),
        "index": struct.pack("<256H", *indexes),
    }
    return b"".join(aligned(parts[name]) for name in order.split())


ORDERS = {
    "4.6": "offsets base count names markers tokens index",
    "6.2": "offsets base count names markers seqs tokens index",
    "6.4": "count names markers tokens index offsets base seqs",
}


@pytest.mark.parametrize("percpu", [True, False])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_each_order_is_read(order: str, percpu: bool) -> None:
    image = b"\x7fELF" + bytes(4092) + b"filler 0\0001\0002 " * 64 + tables(1000, order, percpu)
    found = read_kallsyms(image + bytes(4096))
    assert found is not None
    assert [s.name for s in found] == [name_of(n)[1:] for n in range(1000)]
    assert [s.address for s in found] == [BASE + 16 * n for n in range(1000)]
    assert [s.is_code for s in found[:4]] == [True, True, False, False]


def test_long_names_have_two_bytes_of_length() -> None:
    assert any(len(compress(name_of(n))) > 127 for n in range(1000)) is False
    assert lengths(bytes(300))[:2] == bytes((300 & 0x7F | 0x80, 300 >> 7))


@pytest.mark.parametrize("damage", ["nothing", "truncated", "index", "base"])
def test_what_is_no_table_is_none(damage: str) -> None:
    data = bytearray(tables(1000, ORDERS["6.2"], True))
    if damage == "nothing":
        data = bytearray(b"0\0001\0002\0003\0004\0005\0006\0007\0008\0009\0" * 20)
    elif damage == "truncated":
        del data[-100:]
    elif damage == "index":
        data[-20] ^= 1
    else:
        at = data.find(struct.pack("<Q", BASE))
        data[at : at + 8] = bytes(8)
    assert read_kallsyms(bytes(data)) is None
