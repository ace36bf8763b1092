"""The initramfs: the archive as cpio reads it, and the modules with what they need."""

import lzma
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
import zstandard

from vmm.cli.cpio import Archive
from vmm.cli.initramfs import INIT, base_archive, script_archive
from vmm.cli.kernel_modules import alias_file, dependency_file, select


def unpacked(data: bytes, folder: Path) -> Path:
    """Let cpio read the archive."""
    if shutil.which("cpio") is None:
        pytest.skip("cpio is not installed: it is the judge of the archive")
    command = ["cpio", "-idu", "--quiet", "--no-absolute-filenames", "-E", "/dev/stdin"]
    listed = subprocess.run(["cpio", "-t", "--quiet"], input=data, capture_output=True, check=True)
    names = [name for name in listed.stdout.decode().split("\n") if name and "console" not in name]
    (folder / "names").write_text("\n".join(names))
    command = ["cpio", "-idu", "--quiet", "--no-absolute-filenames", "-E", str(folder / "names")]
    subprocess.run(command, input=data, cwd=folder, check=True)
    return folder


def test_cpio_reads_what_was_written(tmp_path: Path) -> None:
    archive = Archive()
    archive.folder("a")
    archive.file("a/odd", b"12345", 0o755)
    archive.file("a/empty", b"")
    archive.link("l", "a/odd")
    root = unpacked(archive.finished(), tmp_path)
    assert (root / "l").read_bytes() == b"12345"
    assert (root / "l").readlink() == Path("a/odd")
    assert (root / "a/odd").stat().st_mode & 0o777 == 0o755
    assert (root / "a/empty").read_bytes() == b""


def test_every_entry_begins_on_a_multiple_of_four() -> None:
    archive = Archive()
    for length in range(9):
        archive.file("n" * (length + 1), b"x" * length)
    archive.character_device("console", 5, 1)
    data, at, names = archive.finished(), 0, []
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        names.append((name, fields[1], fields[9], fields[10]))
        at += 110 + fields[11]
        at += -at % 4 + fields[6]
        at += -at % 4
    assert names[-2] == ("console", 0o20600, 5, 1)
    assert names[-1][0] == "TRAILER!!!"


def module(*lines: str) -> bytes:
    """System V ABI, an object file with one section: .modinfo."""
    info = b"".join(line.encode() + b"\0" for line in lines)
    names = b"\0.modinfo\0.shstrtab\0"
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    table = 64 + len(info) + len(names)
    head += struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2)
    rows = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    rows += struct.pack("<IIQQQQIIQQ", 1, 1, 2, 0, 64, len(info), 0, 0, 1, 0)
    rows += struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, 64 + len(info), len(names), 0, 0, 1, 0)
    return head + info + names + rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "6.1"
    files: dict[str, Any] = {
        "kernel/drivers/virtio-pci.ko": module(
            "alias=pci:v00001AF4d*sv*", "depends=ring,virtio-core,legacy", "license=GPL"
        ),
        "kernel/drivers/ring.ko.xz": lzma.compress(module("depends=")),
        "kernel/drivers/virtio_core.ko.zst": zstandard.compress(module("depends=ring")),
        "kernel/drivers/legacy.ko": module("license=GPL"),
        "kernel/fs/other.ko": module("depends=ring"),
    }
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_modules_come_after_what_they_need(folder: Path) -> None:
    chosen = select(folder, ["virtio_pci", "built_in", "ring"])
    names = [module.name for module in chosen]
    assert names == ["ring", "virtio_core", "legacy", "virtio_pci"]
    assert all(module.data.startswith(b"\x7fELF") for module in chosen)  # unpacked
    assert chosen[0].path == "kernel/drivers/ring.ko"


def test_dependencies_are_listed_as_depmod_lists_them(folder: Path) -> None:
    """Read from the right, nobody comes before what it needs: ring is needed by virtio_core."""
    lines = dependency_file(select(folder, ["virtio_pci"])).decode().splitlines()
    rows = {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}
    order = rows["kernel/drivers/virtio-pci.ko"][::-1]
    assert sorted(order) == [
        *("kernel/drivers/legacy.ko", "kernel/drivers/ring.ko", "kernel/drivers/virtio_core.ko"),
    ]
    assert order.index("kernel/drivers/ring.ko") < order.index("kernel/drivers/virtio_core.ko")
    assert rows["kernel/drivers/ring.ko"] == []


def test_aliases(folder: Path) -> None:
    assert alias_file(select(folder, ["virtio_pci"])) == b"alias pci:v00001AF4d*sv* virtio_pci\n"


def test_the_archive_of_a_kernel(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    data = base_archive(b"busybox", select(folder, ["virtio_pci"]), "6.1")
    assert data == base_archive(b"busybox", select(folder, ["virtio_pci"]), "6.1")
    root = unpacked(data, out)
    assert (root / "init").read_text() == INIT
    assert (root / "init").stat().st_mode & 0o111
    assert (root / "bin/busybox").read_bytes() == b"busybox"
    assert (root / "lib/modules/6.1/kernel/drivers/legacy.ko").is_file()
    assert (root / "lib/modules/6.1/modules.dep").is_file()
    assert not (root / "lib/modules/6.1/kernel/fs").exists()


def test_init_is_a_script_that_a_shell_can_read(tmp_path: Path) -> None:
    (tmp_path / "init").write_text(INIT)
    subprocess.run(["sh", "-n", str(tmp_path / "init")], check=True)


def test_a_script_is_an_archive_of_its_own(tmp_path: Path) -> None:
    root = unpacked(script_archive("echo hello\n"), tmp_path)
    assert (root / "script").read_text() == "echo hello\n"
