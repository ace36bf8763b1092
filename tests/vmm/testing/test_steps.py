"""Recorded single steps: files made here in the public suites' formats, run and judged."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from vmm.cli.fuzz import fuzz
from vmm.errors import UsageError
from vmm.testing.steps.differences import table
from vmm.testing.steps.step import WORDS
from vmm.testing.steps.suite import files_of, read_suite

BEFORE = dict.fromkeys(WORDS, 0) | {
    "ax": 0x00FF, "bx": 1, "cs": 0x2000, "ss": 0x3000, "ds": 0x4000, "es": 0x5000, "sp": 0x100,
    "ip": 0x10, "flags": 0xF002,
}  # fmt: skip
ADD = bytes.fromhex("01d8")  # add ax, bx


def chunk(tag: bytes, body: bytes) -> bytes:
    return tag + struct.pack("<I", len(body)) + body


def counted(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def state(tag: bytes, regs: dict[str, int], memory: dict[int, int]) -> bytes:
    mask = sum(1 << n for n, name in enumerate(WORDS) if name in regs)
    words = [regs[name] for name in WORDS if name in regs]
    ram = struct.pack("<I", len(memory)) + b"".join(
        struct.pack("<IB", *at) for at in memory.items()
    )
    body = chunk(b"REGS", struct.pack(f"<{len(words) + 1}H", mask, *words)) + chunk(b"RAM ", ram)
    return chunk(tag, body)


def moo(code: bytes, after: dict[str, int], memory_after: dict[int, int] | None = None) -> bytes:
    """A file of one step of an 80286, which a HLT follows."""
    at = (BEFORE["cs"] << 4) + BEFORE["ip"]
    memory = dict(enumerate(code + b"\xf4", at))
    test = (
        struct.pack("<I", 0) + chunk(b"NAME", counted(b"a step"))
        + chunk(b"BYTS", counted(code + b"\xf4")) + state(b"INIT", BEFORE, memory)
        + state(b"FINA", after, memory_after or {}) + chunk(b"HASH", bytes(20))
    )  # fmt: skip
    return chunk(b"MOO ", struct.pack("<IIL4s", 1, 1, 0, b"C286")[:8] + b"C286") + chunk(
        b"TEST", test
    )


def run(path: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[int, str]:
    status = fuzz(suite=str(path), count=10, **options)
    return status, capsys.readouterr().out


@pytest.mark.parametrize("packed", [False, True])
def test_a_step_that_agrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], packed: bool
) -> None:
    data = moo(ADD, {"ax": 0x100, "ip": 0x13, "flags": 0x16})
    path = tmp_path / ("01.MOO.gz" if packed else "01.MOO")
    path.write_bytes(gzip.compress(data) if packed else data)
    assert run(tmp_path, capsys) == (0, "1 recorded steps, 0 differ\n")


def test_a_step_that_differs_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "01.MOO").write_bytes(moo(ADD, {"ax": 0x101, "ip": 0x13, "flags": 0x17}))
    status, text = run(tmp_path, capsys)
    assert status == 1
    assert "a step (01 d8)" in text
    assert "ring1, recorded: ax 0x100 0x101" in text
    assert "ring1, recorded: flags 0x14 0x15" in text


def test_what_a_modern_processor_does_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """LOCK ADD of registers ran on a 286 and is #UD since."""
    data = moo(b"\xf0" + ADD, {"ax": 0x100, "ip": 0x14, "flags": 0x16})
    (tmp_path / "01.MOO").write_bytes(data)
    status, text = run(tmp_path, capsys)
    assert status == 0
    assert "known: 1 lock (design: LOCK before what cannot be locked" in text


def test_flags_that_the_suite_calls_undefined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "01.MOO").write_bytes(moo(ADD, {"ax": 0x100, "ip": 0x13, "flags": 0x06}))
    assert run(tmp_path, capsys)[0] == 1
    meta = {"cpu": "286", "opcodes": {"01": {"flags-mask": 0xFFEF}}}
    (tmp_path / "metadata.json").write_text(json.dumps(meta))
    assert run(tmp_path, capsys)[0] == 0


def test_json_of_an_8086_has_no_halt_behind_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "name": "push ax", "bytes": [0x50],
        "initial": {"regs": BEFORE, "ram": [[0x20010, 0x50]], "queue": []},
        "final": {"regs": {"sp": 0xFE, "ip": 0x11}, "ram": [[0x300FE, 0xFF], [0x300FF, 0]]},
    }  # fmt: skip
    (tmp_path / "50.json").write_text(json.dumps([row]))
    assert run(tmp_path / "50.json", capsys) == (0, "1 recorded steps, 0 differ\n")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.MOO", b"what", "a.MOO is no MOO file"),
        ("a.MOO", moo(ADD, {})[:-3], "is cut short"),
        ("a.json", b"{}x", "a.json is no single-step suite"),
        ("a.json", b'[{"name": 1}]', "is no single-step suite: KeyError"),
        ("a.MOO.gz", b"no gzip", "cannot be read"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=message):
        read_suite(tmp_path / name)


def test_a_folder_without_any(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no single-step suite"):
        files_of(tmp_path)


def test_every_row_of_the_table_says_who_and_why() -> None:
    assert len({row.name for row in table()}) == len(table())
    for row in table():
        assert set(row.cpu) <= {"286", "8086"}
        assert row.leaves in ("all", "flags", "memory")
        assert row.by in ("design", "core")
        assert row.why
        assert row.source
