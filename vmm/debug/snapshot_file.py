"""Snapshot files: a VM at one moment, from which another process goes on as if nothing had been.

Magic and version, the length of the head, the head (JSON: options, digests of files, moment, all
small state), then zlib-compressed memory and caches. Written beside the file and renamed, so that a
file is whole or not there. Nothing in it is code: values are numbers, texts, bytes and lists.
"""

import json
import os
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, Final

from hwmodel.mem.ram import PAGE
from vmm.activity import Activity
from vmm.config import Config
from vmm.debug.checkpoints import Checkpoint
from vmm.debug.moment import Moment
from vmm.debug.recording import digest_of, files_of
from vmm.errors import UsageError
from vmm.state.snapshot import Snapshot, VcpuState

MAGIC: Final = b"ring1 snapshot\n\0"
VERSION: Final = 1
_HEAD: Final = Struct("<16sIII")  # magic, version, bytes of the head, CRC-32 of all that follows


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A file that was read: what to make the VM of, and the moment to put it to."""

    path: Path
    options: dict[str, Any]
    files: dict[str, str]
    checkpoint: Checkpoint


def write(path: Path, checkpoint: Checkpoint, options: Mapping[str, Any], config: Config) -> int:
    """Write a snapshot; return its size in bytes. Raises UsageError if it cannot be written."""
    snapshot = checkpoint.snapshot
    numbers = sorted(snapshot.pages)
    head = {
        "options": dict(options),
        "files": {str(name): digest_of(name) for name in files_of(config)},
        "moment": [*checkpoint.moment.key[:2], checkpoint.moment.exits, checkpoint.moment.is_open],
        "vcpus": [_plain(_fields(vcpu)) for vcpu in snapshot.vcpus],
        "devices": _plain(snapshot.devices), "dialects": _plain(snapshot.dialects),
        "counts": [snapshot.instructions, snapshot.cycles], "ledger": _plain(snapshot.ledger),
        "turns": list(snapshot.turn), "turn": checkpoint.turn, "looks": checkpoint.looks,
        "open_exit": _plain(checkpoint.open_exit), "pages": numbers,
        "private": sum(map(len, checkpoint.private)), "engine": sum(map(len, checkpoint.engine)),
    }  # fmt: skip
    memory = b"".join([*(snapshot.pages[n] for n in numbers), *checkpoint.private])
    body = zlib.compress(memory + b"".join(checkpoint.engine), 1)
    text = json.dumps(head).encode()
    rest = text + body
    _replace(path, _HEAD.pack(MAGIC, VERSION, len(text), zlib.crc32(rest)) + rest)
    return _HEAD.size + len(rest)


def _replace(path: Path, data: bytes) -> None:
    if path.exists() and not path.is_file():  # renaming would put a file in a device's place
        raise UsageError(f"snapshot {str(path)!r} cannot be written: it is no regular file")
    path = path.resolve()  # a link stays one
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        words = (error.strerror or str(error)).lower()
        raise UsageError(f"snapshot {str(path)!r} cannot be written: {words}") from None


def read(path: Path) -> SnapshotFile:
    """Read a snapshot. Raises UsageError, one line, if it is none, another version or damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise UsageError(f"snapshot {str(path)!r} cannot be read: {words}") from None
    if len(data) < _HEAD.size or data[:16] != MAGIC:
        raise UsageError(f"{path} is no snapshot; make one with ring1 snapshot save {path}")
    _, version, size, crc = _HEAD.unpack_from(data)
    if version != VERSION:
        raise UsageError(
            f"{path} is a snapshot of version {version}, and this ring1 reads version {VERSION}; "
            "save it again"
        )
    rest = memoryview(data)[_HEAD.size :]
    if zlib.crc32(rest) != crc:
        raise UsageError(f"{path} is truncated or damaged: its checksum is wrong; save it again")
    head = json.loads(bytes(rest[:size]))
    return SnapshotFile(path, head["options"], head["files"], _checkpoint(head, rest[size:]))


def _checkpoint(head: dict[str, Any], body: memoryview) -> Checkpoint:
    memory = memoryview(zlib.decompress(body))
    numbers, private, engine = head["pages"], head["private"], head["engine"]
    pages = {n: bytes(memory[at * PAGE : (at + 1) * PAGE]) for at, n in enumerate(numbers)}
    at = len(numbers) * PAGE
    instructions, cycles = head["counts"]
    turn, last, current = head["turns"]
    snapshot = Snapshot(
        1, pages, tuple(_vcpu(_typed(vcpu)) for vcpu in head["vcpus"]), _typed(head["devices"]),
        _typed(head["dialects"]), instructions, cycles, _typed(head["ledger"]),
        (turn, last, current),
    )  # fmt: skip
    return Checkpoint(
        Moment(*head["moment"]), snapshot, (bytes(memory[at : at + private]),),
        (bytes(memory[at + private : at + private + engine]),), b"",
        None if head["turn"] is None else tuple(head["turn"]), _typed(head["open_exit"]),
        tuple((looks, gave) for looks, gave in head["looks"]), 0, 0,
    )  # fmt: skip


def _fields(vcpu: VcpuState) -> dict[str, Any]:
    state = {name: getattr(vcpu, name) for name in VcpuState.__dataclass_fields__}
    return state | {"activity": vcpu.activity.value, "msrs": sorted(vcpu.msrs.items())}


def _vcpu(state: dict[str, Any]) -> VcpuState:
    msrs = dict(state["msrs"])
    return VcpuState(**state | {"activity": Activity(state["activity"]), "msrs": msrs})


def _plain(value: Any) -> Any:
    """A state in JSON's types; bytes become {"bytes": base64}."""
    if isinstance(value, bytes | bytearray):
        return {"bytes": b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {"state": [[key, _plain(item)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _typed(value: Any) -> Any:
    """What `_plain` was made of."""
    if isinstance(value, dict):
        if "bytes" in value:
            return b64decode(value["bytes"])
        return {key: _typed(item) for key, item in value["state"]}
    return [_typed(item) for item in value] if isinstance(value, list) else value
