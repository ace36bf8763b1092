"""Raw images, snapshot mode, locks, and how files are refused."""

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmm.errors import UsageError
from vmm.storage.image import StorageError
from vmm.storage.opening import open_image
from vmm.storage.probe import probe

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(random.Random(1).randbytes(MIB))
    return path


def read(image: object, offset: int, size: int) -> bytes:
    data = bytearray(size)
    image.read(offset, [memoryview(data)])  # type: ignore[attr-defined]
    return bytes(data)


def view(data: bytes) -> list[memoryview]:
    return [memoryview(data)]


def test_reads_and_writes_reach_the_file(disk: Path) -> None:
    before = disk.read_bytes()
    image = open_image(disk)
    assert image.size == MIB
    assert read(image, 1024, 700) == before[1024:1724]
    image.write(4096, [memoryview(b"ab" * 256), memoryview(b"cd" * 256)])
    image.zero(8192, 8192, unmap=True)
    image.zero(20480, 512, unmap=False)
    image.discard(65536, 65536)
    image.flush()
    image.close()
    after = disk.read_bytes()
    assert after[4096:5120] == b"ab" * 256 + b"cd" * 256
    assert after[8192:16384] == bytes(8192)
    assert after[20480:20992] == bytes(512)
    assert after[:4096] == before[:4096]
    assert len(after) == MIB


def test_more_pieces_than_the_host_takes_at_once(disk: Path) -> None:
    image = open_image(disk)
    pieces = [memoryview(bytearray(b"%8d" % n)) for n in range(5000)]
    image.write(512, pieces)
    back = [memoryview(bytearray(8)) for _ in range(5000)]
    image.read(512, back)
    assert back == pieces
    image.close()


def test_snapshot_mode_leaves_the_file_alone(disk: Path) -> None:
    dice, before = random.Random(2), disk.read_bytes()
    image = open_image(disk, snapshot=True)
    model = bytearray(before)
    for _ in range(300):
        size = 512 * dice.choice((1, 3, 8, 9, 64))
        at = 512 * dice.randrange((MIB - size) // 512 + 1)
        if dice.random() < 0.4:
            data = dice.randbytes(size)
            image.write(at, view(data))
            model[at : at + size] = data
        elif dice.random() < 0.2:
            image.zero(at, size, unmap=True)
            model[at : at + size] = bytes(size)
        else:
            assert read(image, at, size) == model[at : at + size]
    assert read(image, 0, MIB) == model
    image.flush()
    image.close()
    assert disk.read_bytes() == before


def test_a_writer_excludes_everyone_and_readers_share(disk: Path) -> None:
    writer = open_image(disk)
    for read_only, snapshot in ((False, False), (True, False), (False, True)):
        with pytest.raises(UsageError, match="locked"):
            open_image(disk, read_only=read_only, snapshot=snapshot)
    writer.close()
    readers = [open_image(disk, read_only=True), open_image(disk, snapshot=True)]
    with pytest.raises(UsageError, match="locked"):
        open_image(disk)
    for reader in readers:
        reader.close()
    open_image(disk).close()


def test_a_lock_goes_with_its_process(disk: Path) -> None:
    code = (
        "import sys, pathlib; from vmm.storage.opening import open_image; "
        "i = open_image(pathlib.Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(disk)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(UsageError, match="locked"):
            open_image(disk)
        other.kill()
    open_image(disk).close()


@pytest.mark.parametrize("size", [0, 1, 511, 513, MIB - 1])
def test_a_file_that_is_no_disk_is_refused(size: int, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * size)
    with pytest.raises(UsageError, match="truncated"):
        open_image(path)
    assert path.read_bytes() == b"x" * size


def test_a_missing_file_a_folder_and_a_forbidden_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        open_image(tmp_path / "nowhere")
    for read_only in (False, True):
        with pytest.raises(UsageError, match=r"--disk .* (cannot be opened|not a regular file)"):
            open_image(tmp_path, read_only=read_only)


@pytest.fixture
def folder_of_an_ordinary_user() -> Iterator[Path]:
    """Root may open everything: be somebody else for a while."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        root = os.geteuid() == 0
        if root:
            os.chown(name, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            if root:
                os.seteuid(0)


def test_what_one_may_not_read_or_write_is_refused_with_the_remedy(
    folder_of_an_ordinary_user: Path,
) -> None:
    path = folder_of_an_ordinary_user / "disk"
    path.write_bytes(bytes(512))
    path.chmod(0o400)
    with pytest.raises(UsageError, match="cannot be written; add ,readonly or ,snapshot"):
        open_image(path)
    open_image(path, read_only=True).close()
    open_image(path, snapshot=True).close()
    path.chmod(0)
    for read_only, snapshot in ((False, False), (True, False), (False, True)):
        with pytest.raises(UsageError, match=r"cannot be read; change its permissions \(chmod\)"):
            open_image(path, read_only=read_only, snapshot=snapshot)


HEADS = {
    "vmdk": b"KDMV",
    "vhdx": b"vhdxfile",
    "vpc": b"conectix",
    "qed": b"QED\0",
    "luks": b"LUKS\xba\xbe",
    "vdi": bytes(0x40) + b"\x7f\x10\xda\xbe",
}


@pytest.mark.parametrize("name", HEADS)
def test_a_known_format_that_we_cannot_read_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(HEADS[name].ljust(1024, b"\0"))
    assert probe(path.read_bytes()[:512]) == name
    with pytest.raises(UsageError, match=name):
        open_image(path)
    open_image(path, kind="raw").close()


def test_raw_is_not_qcow2(disk: Path) -> None:
    with pytest.raises(UsageError, match="not a qcow2 image"):
        open_image(disk, kind="qcow2")


def test_a_guest_cannot_turn_a_guessed_raw_disk_into_something_else(disk: Path) -> None:
    image = open_image(disk)
    for at, data in ((0, b"QFI\xfb"), (0x40, b"\x7f\x10\xda\xbe"), (2, b"I\xfb")):
        if at == 2:
            image.write(0, view(b"QF"))
        with pytest.raises(StorageError, match="format=raw"):
            image.write(at, view(data))
    image.write(0, view(b"\xeb\x63\x90" + bytes(509)))
    image.close()
    image = open_image(disk, kind="raw")
    image.write(0, view(b"QFI\xfb"))
    image.close()
