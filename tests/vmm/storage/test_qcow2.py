"""qcow2 images against qemu-img: it makes them, judges them and reads back what we wrote."""

import os
import random
import re
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vmm.storage import qemu
from vmm.errors import UsageError
from vmm.storage.image import Image, StorageError
from vmm.storage.opening import open_image

pytestmark = pytest.mark.oracle
MIB = 1 << 20


def read(image: Image, offset: int, size: int) -> bytes:
    data = bytearray(size)
    cut = size // 3
    image.read(offset, [memoryview(data)[:cut], memoryview(data)[cut:]])
    return bytes(data)


def write(image: Image, offset: int, data: bytes) -> None:
    cut = len(data) // 3
    image.write(offset, [memoryview(data)[:cut], memoryview(data)[cut:]])


def exercise(image: Image, model: bytearray, dice: random.Random, steps: int) -> None:
    """Do random things to an image and to bytes that are to stay equal."""
    size = len(model)
    for _ in range(steps):
        what = dice.random()
        length = 512 * dice.choice((1, 2, 7, 8, 64, 129, 300))
        offset = 512 * dice.randrange((size - length) // 512 + 1)
        if what < 0.4:
            data = dice.randbytes(length)
            write(image, offset, data)
            model[offset : offset + length] = data
        elif what < 0.55:
            image.zero(offset, length, unmap=dice.random() < 0.5)
            model[offset : offset + length] = bytes(length)
        elif what < 0.65:
            image.discard(offset, length)
            model[offset : offset + length] = read(image, offset, length)  # whatever it is now
        elif what < 0.72:
            image.flush()
        else:
            assert read(image, offset, length) == model[offset : offset + length]


SHAPES = {
    "v3": ("-o", "cluster_size=65536"),
    "v2": ("-o", "compat=0.10"),
    "small clusters": ("-o", "cluster_size=512"),
    "one bit": ("-o", "refcount_bits=1,cluster_size=4096"),
    "64 bits": ("-o", "refcount_bits=64,cluster_size=1024"),
    "metadata": ("-o", "preallocation=metadata,cluster_size=4096"),
    "falloc": ("-o", "preallocation=falloc,cluster_size=16384"),
    "lazy": ("-o", "lazy_refcounts=on"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_new_image(shape: str, tmp_path: Path) -> None:
    dice = random.Random(shape)
    size = 2 * MIB + 512 * 3
    path = qemu.create(tmp_path / "a.qcow2", size, *SHAPES[shape])
    model = bytearray(size)
    for _ in range(3):
        image = open_image(path)
        assert image.size == size
        exercise(image, model, dice, 120)
        image.close()
        assert qemu.check(path) == qemu.CLEAN
        assert qemu.content(path, tmp_path / "raw") == model
    image = open_image(path, read_only=True)
    assert read(image, 0, size) == model
    image.close()


def test_refcounts_outgrow_their_table(tmp_path: Path) -> None:
    """512-byte clusters: one cluster of refcount table counts 8 MiB of file."""
    size = 40 * MIB
    path = qemu.create(tmp_path / "a.qcow2", size, "-o", "cluster_size=512")
    image = open_image(path)
    data = random.Random(3).randbytes(MIB)
    for at in range(0, 20 * MIB, MIB):
        write(image, at, data)
        if at % (5 * MIB) == 0:
            image.flush()
    image.close()
    assert qemu.check(path) == qemu.CLEAN
    assert qemu.content(path, tmp_path / "raw") == data * 20 + bytes(20 * MIB)


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize("backing", ["raw", "qcow2"])
def test_a_backing_file_shows_through(compat: str, backing: str, tmp_path: Path) -> None:
    dice = random.Random(4)
    base, below = tmp_path / "base", dice.randbytes(2 * MIB)
    (tmp_path / "raw").write_bytes(below)
    qemu.run("convert", "-f", "raw", "-O", backing, tmp_path / "raw", base)
    path, size = tmp_path / "top.qcow2", 3 * MIB
    qemu.create(path, size, "-b", "base", "-F", backing, "-o", f"compat={compat}")
    before = base.read_bytes()
    model = bytearray(below + bytes(size - len(below)))
    image = open_image(path)
    assert read(image, MIB, 2 * MIB) == model[MIB:]
    exercise(image, model, dice, 250)
    image.close()
    assert base.read_bytes() == before
    assert qemu.check(path) == qemu.CLEAN
    assert qemu.content(path, tmp_path / "raw") == model


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
@pytest.mark.parametrize("cluster", [4096, 65536, 2 * MIB])
def test_compressed_clusters(kind: str, cluster: int, tmp_path: Path) -> None:
    dice = random.Random(5)
    words = [dice.randbytes(40) for _ in range(50)]
    data = b"".join(dice.choice(words) for _ in range(100_000))[: 3 * MIB]
    raw, path = tmp_path / "raw", tmp_path / "c.qcow2"
    raw.write_bytes(data)
    how = f"compression_type={kind},cluster_size={cluster}"
    qemu.run("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", how, raw, path)
    assert path.stat().st_size < len(data) + 4 * cluster
    image = open_image(path)
    assert read(image, 0, len(data)) == data
    model = bytearray(data)
    exercise(image, model, dice, 120)
    image.close()
    assert qemu.check(path) == qemu.CLEAN
    assert qemu.content(path, raw) == model


def test_an_internal_snapshot_keeps_its_content(tmp_path: Path) -> None:
    dice = random.Random(6)
    path, size = qemu.create(tmp_path / "a.qcow2", 2 * MIB, "-o", "cluster_size=4096"), 2 * MIB
    model = bytearray(size)
    image = open_image(path)
    exercise(image, model, dice, 100)
    image.close()
    then = bytes(model)
    qemu.run("snapshot", "-c", "then", path)
    image = open_image(path)
    exercise(image, model, dice, 200)
    image.close()
    assert qemu.check(path) == qemu.CLEAN
    assert qemu.content(path, tmp_path / "raw") == model
    qemu.run("snapshot", "-a", "then", path)
    assert qemu.content(path, tmp_path / "raw") == then


def test_what_was_flushed_survives_without_a_close(tmp_path: Path) -> None:
    """The file as a kill leaves it, at many moments: no corruption, and the flushed content."""
    dice = random.Random(7)
    size = 2 * MIB
    path = qemu.create(tmp_path / "a.qcow2", size, "-o", "cluster_size=4096")
    copy = tmp_path / "copy.qcow2"
    image = open_image(path)
    flushed: dict[int, bytes] = {}
    for _ in range(12):
        for _ in range(20):
            at, what = 4096 * dice.randrange(size // 4096), dice.random()
            if what < 0.7:
                data = dice.randbytes(dice.choice((512, 4096)))
                write(image, at, data)
            else:
                image.zero(at, 4096, unmap=True)
            flushed.pop(at, None)
        if dice.random() < 0.5:
            image.flush()
            flushed = {at: read(image, at, 4096) for at in range(0, size, 4096)}
        copy.write_bytes(path.read_bytes())
        assert qemu.check(copy)["corruptions"] == 0
        now = qemu.content(copy, tmp_path / "raw")
        assert {at: now[at : at + 4096] for at in flushed} == flushed
    image.close()


def patched(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def set_external(path: Path) -> None:
    patched(path, 72, (4).to_bytes(8, "big"))


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "version": (lambda p: patched(p, 4, (4).to_bytes(4, "big")), "version 4"),
    "encrypted": (lambda p: patched(p, 32, (1).to_bytes(4, "big")), "encrypted"),
    "unknown feature": (lambda p: patched(p, 72, (1 << 40).to_bytes(8, "big")), "incompatible"),
    "external data": (set_external, "external data file"),
    "extended L2": (lambda p: patched(p, 72, (16).to_bytes(8, "big")), "extended L2"),
    "dirty": (lambda p: patched(p, 72, (1).to_bytes(8, "big")), "not closed in order"),
    "corrupt": (lambda p: patched(p, 72, (2).to_bytes(8, "big")), "marked corrupt"),
    "cluster bits": (lambda p: patched(p, 20, (30).to_bytes(4, "big")), "clusters of 2^30"),
    "refcount order": (lambda p: patched(p, 96, (7).to_bytes(4, "big")), "refcounts of 2^7"),
    "header length": (lambda p: patched(p, 100, (5).to_bytes(4, "big")), "header of 5"),
    "size": (lambda p: patched(p, 24, (77).to_bytes(8, "big")), "77 bytes"),
    "L1 size": (lambda p: patched(p, 36, (0).to_bytes(4, "big")), "too few"),
    "huge L1": (lambda p: patched(p, 36, (1 << 31).to_bytes(4, "big")), "corrupt"),
    "L1 offset": (lambda p: patched(p, 40, (77).to_bytes(8, "big")), "corrupt"),
    "L1 far": (lambda p: patched(p, 40, (1 << 40).to_bytes(8, "big")), "truncated"),
    "refcount table": (lambda p: patched(p, 48, (1 << 40).to_bytes(8, "big")), "truncated"),
    "no refcounts": (lambda p: patched(p, 56, bytes(4)), "no refcount table"),
    "uncounted": (lambda p: patched(p, 0x20000, bytes(8)), "reference counts"),
    "backing name": (lambda p: patched(p, 8, (1 << 40).to_bytes(8, "big")), "backing file"),
    "cut in the header": (lambda p: os.truncate(p, 60), "truncated"),
    "cut in the tables": (lambda p: os.truncate(p, 0x28000), "truncated"),
    "cut in the data": (lambda p: os.truncate(p, p.stat().st_size - 0x20000), "truncated"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = qemu.create(tmp_path / "a.qcow2", MIB)
    image = open_image(path)
    write(image, 0, bytes(range(256)) * 2048)
    image.close()
    spoil, word = REFUSED[name]
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=re.escape(word)) as caught:
        open_image(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_dirty_and_corrupt_images_can_be_read(tmp_path: Path) -> None:
    path = qemu.create(tmp_path / "a.qcow2", MIB)
    patched(path, 72, (3).to_bytes(8, "big"))
    open_image(path, read_only=True).close()
    open_image(path, snapshot=True).close()


@pytest.mark.parametrize("seed", range(20))
def test_a_corrupt_image_raises_nothing_but_its_own_errors(seed: int, tmp_path: Path) -> None:
    """Random bytes in every table: refused, an I/O error, or other content; the host is safe."""
    dice = random.Random(seed)
    path = qemu.create(tmp_path / "a.qcow2", MIB, "-o", "cluster_size=4096")
    image = open_image(path)
    exercise(image, bytearray(MIB), dice, 60)
    image.close()
    for _ in range(40):
        at = dice.choice((dice.randrange(8, 104), dice.randrange(0x1000, 0x6000)))
        patched(path, at, bytes([dice.choice((0, 1, 0x80, 0xFF, dice.randrange(256)))]))
    try:
        image = open_image(path)
    except UsageError:
        return
    for _ in range(60):
        offset = 512 * dice.randrange(image.size // 512)
        try:
            if dice.random() < 0.5:
                read(image, offset, 512)
            elif dice.random() < 0.8:
                write(image, offset, bytes(512))
            else:
                image.zero(offset, 512, unmap=True)
                image.flush()
        except StorageError:
            continue
    image.close()
    assert path.stat().st_size < 64 * MIB


def test_a_circle_of_backing_files_is_refused(tmp_path: Path) -> None:
    path = qemu.create(tmp_path / "a.qcow2", MIB)
    qemu.run("rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "a.qcow2", path)
    with pytest.raises(UsageError, match="circle"):
        open_image(path, read_only=True)
    with pytest.raises(UsageError, match="locked"):
        open_image(path)


@pytest.mark.parametrize("name", ["json:{}", "nbd://localhost/x"])
def test_a_backing_file_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    path = qemu.create(tmp_path / "a.qcow2", MIB)
    subprocess.run(
        [qemu.need(), "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", name, path], check=False
    )
    with pytest.raises(UsageError, match="backing file"):
        open_image(path)


def test_a_full_host_disk_costs_the_write_and_nothing_else(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for a full disk: the write fails, what was there stays."""
    path = qemu.create(tmp_path / "a.qcow2", 8 * MIB, "-o", "cluster_size=4096")
    image = open_image(path)
    write(image, 0, b"keep" * 1024)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5 * 4096, hard))
    try:
        with pytest.raises(StorageError):
            write(image, 4096, bytes([7]) * MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    write(image, 4 * MIB, b"more" * 1024)
    image.close()
    assert qemu.check(path) == qemu.CLEAN
    now = qemu.content(path, tmp_path / "raw")
    assert now[:4096] == b"keep" * 1024
    assert now[4 * MIB :][:4096] == b"more" * 1024


def test_qemu_and_we_exclude_each_other(tmp_path: Path) -> None:
    """Readers share; a writer of either kind keeps the other out."""
    if qemu.QEMU_IO is None:
        pytest.skip("qemu-io is not installed")
    path = qemu.create(tmp_path / "a.qcow2", MIB)
    for words, shared in (([], False), (["-r"], True)):
        with subprocess.Popen(
            [qemu.QEMU_IO, *words, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            other.stdin.write(b"read 0 512\n")
            other.stdin.flush()
            assert b"read 512/512" in other.stdout.readline()
            with pytest.raises(UsageError, match="locked"):
                open_image(path)
            if shared:
                open_image(path, read_only=True).close()
            else:
                with pytest.raises(UsageError, match="locked"):
                    open_image(path, read_only=True)
            other.communicate(b"quit\n")
    for read_only in (False, True):
        image = open_image(path, read_only=read_only)
        words = ["-c", "read 0 512"] if not read_only else ["-c", "write 0 512"]
        done = subprocess.run([qemu.QEMU_IO, *words, str(path)], capture_output=True, check=False)
        assert done.returncode == 1
        assert b"lock" in done.stderr
        image.close()
