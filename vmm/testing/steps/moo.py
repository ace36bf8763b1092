"""MOO files ("Machine Opcode Operation", github.com/dbalsom/moo): chunks of a tag of four letters,
a length of 32 bits, and what the tag says.

    MOO   version, number of tests, processor
    TEST  number; in it chunks: NAME, BYTS (the code), INIT and FINA (states), EXCP, HASH, ...
    state chunks: REGS (a mask, then the words that it names), RAM (address and byte each)

Raises UsageError for a file that is none, or that ends too early.
"""

import struct
from collections.abc import Iterator

from vmm.errors import UsageError
from vmm.testing.steps.step import WORDS, Step

_HEAD = struct.Struct("<4sI")
_BYTE_AT = struct.Struct("<IB")
_EXCEPTION = struct.Struct("<BI")
_CPU_AT = 8


def read_moo(data: bytes, name: str) -> tuple[str, list[Step]]:
    """Return the processor and the steps of a file's content; `name` is for messages."""
    try:
        chunks = _chunks(data)
        tag, head = next(chunks)
        if tag != b"MOO ":
            raise ValueError("it does not begin with MOO")
        cpu = head[_CPU_AT : _CPU_AT + 4].decode().strip()
        steps = [_step(body, cpu) for tag, body in chunks if tag == b"TEST"]
    except (ValueError, struct.error, IndexError, KeyError, StopIteration) as error:
        raise UsageError(f"{name} is no MOO file: {str(error) or 'it is empty'}") from None
    return {"C286": "286", "286": "286", "8086": "8086", "8088": "8086"}.get(cpu, cpu), steps


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        tag, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if at + size > len(data):
            raise ValueError(f"chunk {tag!r} is cut short")
        yield tag, data[at : at + size]
        at += size


def _step(body: bytes, cpu: str) -> Step:
    parts = dict(_chunks(body[4:]))
    before, memory = _state(parts[b"INIT"])
    after, memory_after = _state(parts[b"FINA"])
    code = _counted(parts[b"BYTS"])
    halts = "286" in cpu
    number = where = None
    if b"EXCP" in parts:
        number, where = _EXCEPTION.unpack_from(parts[b"EXCP"])
    return Step(
        _counted(parts[b"NAME"]).decode(), code[:-1] if halts else code, before, after, memory,
        memory_after, halts, number, where, parts.get(b"HASH", b"").hex(),
    )  # fmt: skip


def _counted(data: bytes) -> bytes:
    return data[4 : 4 + int.from_bytes(data[:4], "little")]


def _state(data: bytes) -> tuple[dict[str, int], dict[int, int]]:
    parts = dict(_chunks(data))
    return _registers(parts[b"REGS"]), _memory(parts.get(b"RAM ", bytes(4)))


def _registers(data: bytes) -> dict[str, int]:
    mask, found, at = int.from_bytes(data[:2], "little"), {}, 2
    for n, name in enumerate(WORDS):
        if mask >> n & 1:
            found[name] = int.from_bytes(data[at : at + 2], "little")
            at += 2
    return found


def _memory(data: bytes) -> dict[int, int]:
    count = int.from_bytes(data[:4], "little")
    return dict(_BYTE_AT.iter_unpack(data[4 : 4 + count * _BYTE_AT.size]))
