"""A snapshot file: another process goes on as the run would have."""

import json
import os
from pathlib import Path

import pytest

from tests.images import elf64
from tests.vmm.debug.test_session import WORK
from vmm.cli.main import main

HELD = {"vtx": (), "shadow": ("--mmu", "shadow"), "trap": ("--technique", "trap")}


def statistics(err: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(err[err.index("{") :])
    del found["wall_seconds"]
    return found


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("at", ["step:2500", "exit:40", "cycle:1500000"])
def test_the_run_goes_on_where_it_was(
    held: str, at: str, hold: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image, file = tmp_path / "guest.elf", tmp_path / "guest.snapshot"
    image.write_bytes(elf64(WORK))
    exact = held == "vtx" and hold == "ept"
    # Shadows are made anew, which costs exits that the guest does not see, and their cycles.
    timing = () if exact else ("--timing", "fast")
    options = ("--memory", "4M", *timing, *HELD[held], str(image))
    main(["run", "--stats", "json", *options])
    whole = statistics(capfd.readouterr().err)
    assert main(["snapshot", "save", str(file), "--at", at, *options]) == 0
    capfd.readouterr()
    main(["snapshot", "run", str(file), "--stats", "json"])
    rest = statistics(capfd.readouterr().err)
    if not exact:
        for name in ("exits", "hardware_exits", "exit_cycles", "cycles", "ledger"):
            whole.pop(name, None), rest.pop(name, None)
    assert rest == whole


def test_what_is_no_snapshot_is_said_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image, file = tmp_path / "guest.elf", tmp_path / "guest.snapshot"
    image.write_bytes(elf64(WORK))
    options = ("--memory", "4M", str(image))
    assert main(["snapshot", "save", str(file), "--at", "exit:9", *options]) == 0
    assert main(["snapshot", "show", str(file)]) == 0
    capfd.readouterr()
    whole = file.read_bytes()
    for data, words in (
        (whole[:-1], "truncated or damaged"),
        (whole[:200], "truncated or damaged"),
        (whole[:16] + b"\7" + whole[17:], "version 7"),
        (b"hello", "is no snapshot"),
    ):
        file.write_bytes(data)
        assert main(["snapshot", "run", str(file)]) == 64
        err = capfd.readouterr().err
        assert err.count("\n") == 1
        assert words in err
    file.write_bytes(whole)
    image.write_bytes(elf64("nop;" + WORK))
    assert main(["snapshot", "run", str(file)]) == 64
    assert "is another file" in capfd.readouterr().err
    assert main(["snapshot", "save", str(file), "--at", "moon:3", *options]) == 64
    assert main(["snapshot", "save", str(file), "--at", "exit:99999999", *options]) == 64
    assert main(["snapshot", "save", "/nowhere/x", *options]) == 64
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert file.read_bytes() == whole


def test_a_device_stays_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image, pipe = tmp_path / "guest.elf", tmp_path / "pipe"
    image.write_bytes(elf64(WORK))
    os.mkfifo(pipe)
    assert main(["snapshot", "save", str(pipe), "--at", "exit:3", str(image)]) == 64
    assert "no regular file" in capfd.readouterr().err
    assert pipe.is_fifo()
