"""A shared folder: what the guest does is what the host sees, and nothing outside of it."""

import os
import random
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vmm.share.client import ROOT, Client, RefusedError, name_of
from vmm.errors import UsageError
from vmm.share.fuse import MAX_WRITE, NAME_MAX, Opcode
from vmm.share.nodes import OPEN_MAX
from vmm.share.request import HANDLES_MAX
from vmm.share.server import FuseServer
from vmm.virtio.fs import check_tag


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shared = tmp_path / "shared"
    (shared / "deep" / "deeper").mkdir(parents=True)
    (shared / "file").write_bytes(b"contents")
    (shared / "deep" / "deeper" / "leaf").write_bytes(bytes(range(256)) * 1000)
    (tmp_path / "secret").write_text("not shared")
    (shared / "out").symlink_to("../secret")
    (shared / "up").symlink_to("..")
    return shared


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    client = Client(folder)
    yield client
    client.server.close()


def refused(client: Client, *arguments: object) -> str:
    with pytest.raises(RefusedError) as caught:
        client.ask(*arguments)  # type: ignore[arg-type]
    return name_of(caught.value)


def test_init_agrees_on_what_both_know(client: Client) -> None:
    answer = client.init()
    major, minor, readahead, flags, _, _, max_write, _, max_pages = struct.unpack_from(
        "<IIIIHHIIH", answer
    )
    assert (major, minor, readahead, max_write) == (7, 31, 1 << 20, MAX_WRITE)
    assert max_pages == MAX_WRITE // 4096
    assert flags & (1 << 13)
    assert not flags & (1 << 31)
    assert len(answer) == 64
    assert struct.unpack_from("<II", client.init(8, 0)) == (7, 31)
    with pytest.raises(RefusedError) as caught:
        client.init(7, 30)
    assert name_of(caught.value) == "EPROTO"


def test_before_init_nothing_is_answered(client: Client) -> None:
    client.ask(Opcode.DESTROY)
    assert refused(client, Opcode.LOOKUP, ROOT, b"file\0") == "EIO"


def test_files_are_read_where_they_are(client: Client, folder: Path) -> None:
    leaf = client.walk("deep/deeper/leaf")
    expected = (folder / "deep/deeper/leaf").read_bytes()
    assert client.attributes(leaf)["size"] == len(expected)
    handle = client.open(leaf)
    assert client.read(handle, 0, len(expected) + 10) == expected
    assert client.read(handle, 255_990, 100) == expected[255_990:]
    assert client.read(handle, 1 << 40, 100) == b""
    client.release(handle)
    with pytest.raises(RefusedError):
        client.read(handle, 0, 1)


def test_attributes_are_the_hosts(client: Client, folder: Path) -> None:
    os.utime(folder / "file", ns=(1_000_000_007, 2_000_000_009))
    seen, real = client.attributes(client.look_up(b"file")), (folder / "file").stat()
    assert seen["ino"] == real.st_ino
    assert (seen["atime"], seen["atimensec"], seen["mtime"], seen["mtimensec"]) == (1, 7, 2, 9)
    assert (seen["mode"], seen["nlink"], seen["uid"]) == (real.st_mode, 1, 0)


def test_what_is_written_is_on_the_host(client: Client, folder: Path) -> None:
    node, handle = client.create(b"new", mode=0o4755)
    data = random.Random(1).randbytes(300_000)
    assert client.write(handle, 0, data) == len(data)
    assert client.write(handle, 299_000, b"x" * 2000) == 2000
    client.ask(Opcode.FSYNC, node, struct.pack("<QII", handle, 0, 0))
    assert (folder / "new").read_bytes() == data[:299_000] + b"x" * 2000
    assert stat.S_IMODE((folder / "new").stat().st_mode) & 0o7000 == 0  # no set-user-ID
    client.set_attributes(node, 1 << 3, size=5)
    assert (folder / "new").read_bytes() == data[:5]
    client.set_attributes(node, 1, mode=0o6640)
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o640
    client.set_attributes(node, 0x30, atime=7, mtime=8, mtimensec=9)
    assert (folder / "new").stat().st_mtime_ns == 8_000_000_009
    client.set_attributes(node, 0x10, atime=11)
    assert (folder / "new").stat().st_mtime_ns == 8_000_000_009
    assert (folder / "new").stat().st_atime_ns == 11_000_000_000


def test_appending_and_truncating_opens(client: Client, folder: Path) -> None:
    node = client.look_up(b"file")
    handle = client.open(node, os.O_WRONLY | os.O_APPEND)
    client.write(handle, 8, b" and more")
    assert (folder / "file").read_bytes() == b"contents and more"
    client.open(node, os.O_WRONLY | os.O_TRUNC)
    assert (folder / "file").read_bytes() == b""


def test_create_takes_a_file_that_is_there(client: Client, folder: Path) -> None:
    _, handle = client.create(b"file", os.O_RDWR)
    assert client.read(handle, 0, 100) == b"contents"
    with pytest.raises(RefusedError) as caught:
        client.create(b"file", os.O_RDWR | os.O_EXCL)
    assert name_of(caught.value) == "EEXIST"


@pytest.mark.parametrize("plus", [False, True])
def test_directories_are_listed_sorted_in_pieces(client: Client, folder: Path, plus: bool) -> None:
    for number in range(50):
        (folder / "deep" / f"{number:03d}").touch()
    node = client.look_up(b"deep")
    listed = client.list(node, plus=plus)
    names = sorted(os.fsencode(path.name) for path in (folder / "deep").iterdir())
    assert list(listed) == [b".", b"..", *names]
    assert listed[b"007"] == (folder / "deep/007").stat().st_ino


def test_names_are_made_moved_and_removed(client: Client, folder: Path) -> None:
    def named(*fields: int, layout: str = "<II") -> bytes:
        return struct.pack(layout, *fields)

    client.ask(Opcode.MKDIR, ROOT, named(0o755, 0) + b"d\0")
    assert (folder / "d").is_dir()
    directory = client.look_up(b"d")
    client.ask(Opcode.MKNOD, directory, named(0o100644, 0, 0, 0, layout="<IIII") + b"f\0")
    client.ask(Opcode.SYMLINK, directory, b"s\0../../../secret\0")
    client.ask(Opcode.LINK, ROOT, struct.pack("<Q", client.walk("d/f")) + b"hard\0")
    assert (folder / "hard").stat().st_nlink == 2
    link = client.walk("d/s")
    assert client.ask(Opcode.READLINK, link) == b"../../../secret"
    assert stat.S_ISLNK(client.attributes(link)["mode"])
    client.ask(Opcode.LINK, ROOT, struct.pack("<Q", link) + b"hard link\0")
    assert (folder / "hard link").is_symlink()
    client.ask(Opcode.RENAME, ROOT, struct.pack("<Q", directory) + b"hard\0moved\0")
    assert (folder / "d" / "moved").exists()
    flags = struct.pack("<QII", ROOT, 1, 0)
    assert refused(client, Opcode.RENAME2, directory, flags + b"moved\0file\0") == "EEXIST"
    client.ask(Opcode.RENAME2, directory, flags + b"moved\0fresh\0")
    exchange = struct.pack("<QII", ROOT, 2, 0)
    assert refused(client, Opcode.RENAME2, ROOT, exchange + b"a\0b\0") == "EINVAL"
    for name in (b"f\0", b"s\0"):
        client.ask(Opcode.UNLINK, directory, name)
    client.ask(Opcode.RMDIR, ROOT, b"d\0")
    assert not (folder / "d").exists()
    assert (folder / "fresh").exists()


def test_a_node_follows_its_file(client: Client, folder: Path) -> None:
    node = client.look_up(b"file")
    (folder / "file").rename(folder / "renamed by the host")
    assert client.read(client.open(node), 0, 8) == b"contents"
    (folder / "renamed by the host").unlink()
    assert client.attributes(node)["nlink"] == 0


@pytest.mark.parametrize(
    "name", [b"..", b".", b"", b"deep/deeper", b"/etc", b"../secret", b"a" * (NAME_MAX + 1)]
)
@pytest.mark.parametrize(
    ("opcode", "prefix"),
    [
        (Opcode.LOOKUP, 0), (Opcode.MKDIR, 8), (Opcode.UNLINK, 0), (Opcode.RMDIR, 0),
        (Opcode.CREATE, 16), (Opcode.MKNOD, 16), (Opcode.RENAME, 8), (Opcode.LINK, 8),
    ],
)  # fmt: skip
def test_no_name_leaves_the_folder(
    client: Client, folder: Path, opcode: int, prefix: int, name: bytes
) -> None:
    fields = struct.pack("<II", 0o100644, 0) + bytes(8)
    if opcode in (Opcode.RENAME, Opcode.LINK):
        fields = struct.pack("<Q", client.look_up(b"file")) + bytes(8)
        if opcode == Opcode.RENAME:
            fields = struct.pack("<Q", ROOT) + bytes(8)
    if opcode in (Opcode.CREATE, Opcode.MKNOD):
        fields = struct.pack("<IIII", os.O_RDWR if opcode == Opcode.CREATE else 0o100644, *[0] * 3)
    code = refused(client, opcode, ROOT, fields[:prefix] + name + b"\0" + name + b"\0")
    assert code in ("EINVAL", "ENAMETOOLONG")
    assert sorted(path.name for path in folder.parent.iterdir()) == ["secret", "shared"]


def test_symbolic_links_are_never_followed_here(client: Client, folder: Path) -> None:
    out, up = client.look_up(b"out"), client.look_up(b"up")
    assert refused(client, Opcode.OPEN, out, struct.pack("<II", 0, 0)) == "EACCES"
    assert refused(client, Opcode.LOOKUP, up, b"secret\0") == "ENOTDIR"
    assert refused(client, Opcode.OPENDIR, up, struct.pack("<II", 0, 0)) in ("ELOOP", "ENOTDIR")
    with pytest.raises(RefusedError):
        client.set_attributes(out, 1 << 3, size=0)
    client.set_attributes(out, 0x30, mtime=5)
    create = struct.pack("<IIII", os.O_RDWR | os.O_TRUNC, 0o644, 0, 0)
    assert refused(client, Opcode.CREATE, ROOT, create + b"out\0") == "EACCES"
    assert (folder.parent / "secret").read_text() == "not shared"
    assert (folder / "out").lstat().st_mtime == 5


def test_a_directory_replaced_by_a_link_leads_nowhere(client: Client, folder: Path) -> None:
    """Even when the node's descriptor had been closed and the name now means something else."""
    node = client.walk("deep/deeper")
    for path in range(OPEN_MAX + 5):
        (folder / f"n{path}").touch()
        client.look_up(f"n{path}".encode())
    (folder / "deep/deeper/leaf").unlink()
    (folder / "deep/deeper").rmdir()
    (folder / "deep/deeper").symlink_to("../..")
    assert refused(client, Opcode.LOOKUP, node, b"secret\0") == "ESTALE"


def test_special_files_are_neither_opened_nor_made(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)  # a socket's path is short
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    for name in (b"pipe", b"socket"):
        node = client.look_up(name)
        assert refused(client, Opcode.OPEN, node, struct.pack("<II", 0, 0)) == "EACCES"
    device = struct.pack("<IIII", stat.S_IFCHR | 0o666, 0x103, 0, 0) + b"null\0"
    assert refused(client, Opcode.MKNOD, ROOT, device) == "EPERM"


def test_a_folder_to_read_is_not_written(folder: Path) -> None:
    client = Client(folder, readonly=True)
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    node = client.look_up(b"file")
    handle = client.open(node)
    assert client.read(handle, 0, 100) == b"contents"
    two = struct.pack("<II", 0o755, 0)
    requests: list[tuple[int, int, bytes]] = [
        (Opcode.OPEN, node, struct.pack("<II", os.O_RDWR, 0)),
        (Opcode.OPEN, node, struct.pack("<II", os.O_TRUNC, 0)),
        (Opcode.WRITE, node, struct.pack("<QQIIQII", handle, 0, 1, 0, 0, 0, 0) + b"x"),
        (Opcode.CREATE, ROOT, two + two + b"x\0"),
        (Opcode.MKDIR, ROOT, two + b"x\0"),
        (Opcode.MKNOD, ROOT, struct.pack("<IIII", 0o100644, 0, 0, 0) + b"x\0"),
        (Opcode.SYMLINK, ROOT, b"x\0y\0"),
        (Opcode.LINK, ROOT, struct.pack("<Q", node) + b"x\0"),
        (Opcode.UNLINK, ROOT, b"file\0"),
        (Opcode.RMDIR, ROOT, b"deep\0"),
        (Opcode.RENAME, ROOT, struct.pack("<Q", ROOT) + b"file\0x\0"),
        (Opcode.RENAME2, ROOT, struct.pack("<QII", ROOT, 1, 0) + b"file\0x\0"),
        (Opcode.SETATTR, node, struct.pack("<IIQ5Q8I", 8, 0, 0, *[0] * 13)),
        (Opcode.FALLOCATE, node, struct.pack("<QQQII", handle, 0, 100, 0, 0)),
        (Opcode.COPY_FILE_RANGE, node, struct.pack("<7Q", handle, 0, node, handle, 0, 1, 0)),
    ]
    for opcode, on, body in requests:
        assert refused(client, opcode, on, body) == "EROFS", Opcode(opcode)
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} == before


def test_other_requests_on_open_files(client: Client, folder: Path) -> None:
    node, handle = client.create(b"new")
    client.ask(Opcode.FALLOCATE, node, struct.pack("<QQQII", handle, 0, 9000, 0, 0))
    assert (folder / "new").stat().st_size == 9000
    punch = struct.pack("<QQQII", handle, 0, 9000, 3, 0)
    assert refused(client, Opcode.FALLOCATE, node, punch) in ("EOPNOTSUPP", "ENOTSUP")
    source = client.open(client.look_up(b"file"))
    copy = struct.pack("<7Q", source, 1, node, handle, 100, 5, 0)
    assert struct.unpack_from("<I", client.ask(Opcode.COPY_FILE_RANGE, node, copy))[0] == 5
    assert client.read(handle, 100, 5) == b"onten"
    seek = struct.pack("<QQII", handle, 0, os.SEEK_HOLE, 0)
    assert struct.unpack("<Q", client.ask(Opcode.LSEEK, node, seek))[0] <= 9000
    assert refused(client, Opcode.LSEEK, node, struct.pack("<QQII", handle, 0, 0, 0)) == "EINVAL"
    statfs = struct.unpack_from("<5QIII", client.ask(Opcode.STATFS))
    assert statfs[0] == os.statvfs(folder).f_blocks
    client.ask(Opcode.FLUSH, node, struct.pack("<QIIQ", handle, 0, 0, 0))
    assert refused(client, Opcode.FSYNC, node, struct.pack("<QII", 999, 0, 0)) == "EBADF"


def test_forgotten_nodes_are_gone(client: Client) -> None:
    node = client.look_up(b"file")
    assert client.look_up(b"file") == node
    before = len(client.server._folder.nodes)
    head = struct.pack("<IIQQIIIHH", 48, Opcode.FORGET, 2, node, 0, 0, 0, 0, 0)
    client.driven.request(0, [head, struct.pack("<Q", 2)])
    client.driven.let_time_pass()
    assert client.driven.drivers[0].used()[0][1] == 0
    assert len(client.server._folder.nodes) == before - 1
    with pytest.raises(RefusedError):
        client.attributes(node)
    batch = struct.pack("<II", 2, 0) + struct.pack("<4Q", client.look_up(b"file"), 1, 77, 5)
    head = struct.pack("<IIQQIIIHH", 0, Opcode.BATCH_FORGET, 2, 0, 0, 0, 0, 0, 0)
    client.driven.request(0, [head, batch])
    assert len(client.server._folder.nodes) == before - 1
    head = struct.pack("<IIQQIIIHH", 0, Opcode.FORGET, 2, ROOT, 0, 0, 0, 0, 0)
    client.driven.request(0, [head, struct.pack("<Q", 1 << 40)])
    assert client.attributes(ROOT)["mode"]


def test_descriptors_are_bounded(client: Client, folder: Path) -> None:
    node = client.look_up(b"file")
    handles = [client.open(node) for _ in range(HANDLES_MAX)]
    assert refused(client, Opcode.OPEN, node, struct.pack("<II", 0, 0)) == "EMFILE"
    client.release(handles.pop())
    for number in range(OPEN_MAX + 50):
        (folder / f"n{number}").touch()
    assert len(client.list(plus=True, room=100_000)) > OPEN_MAX
    assert len(list(Path("/proc/self/fd").iterdir())) < HANDLES_MAX + OPEN_MAX + 100


def test_what_is_not_known_is_said_so(client: Client) -> None:
    for opcode in (22, 31, 34, 39, 48, 99, 1 << 30):
        assert refused(client, opcode) == "ENOSYS"
    assert refused(client, Opcode.GETATTR, 12345, bytes(16)) == "ESTALE"
    assert refused(client, Opcode.SETATTR, ROOT, b"short") == "EINVAL"
    assert refused(client, Opcode.LOOKUP, ROOT, b"no zero at the end") == "EINVAL"


def test_a_reply_without_room_is_an_error(client: Client) -> None:
    head = struct.pack("<IIQQIIIHH", 56, Opcode.GETATTR, 77, ROOT, 0, 0, 0, 0, 0)
    reply = client.driven.ask(1, [head, bytes(16)], 20)
    assert struct.unpack("<IiQ", reply) == (16, -5, 77)
    assert client.driven.ask(1, [head, bytes(16)], 8) == struct.pack("<Ii", 16, -5)


def test_state_is_written_down_and_files_are_found_again(client: Client, folder: Path) -> None:
    leaf = client.walk("deep/deeper/leaf")
    handle = client.open(leaf)
    gone = client.look_up(b"file")
    directory = client.open(ROOT, opcode=Opcode.OPENDIR)
    state = client.driven.device.save()
    (folder / "file").unlink()
    client.ask(Opcode.DESTROY)
    rings = {key: client.driven.device.save()[key] for key in ("queue0", "queue1")}
    client.driven.device.restore(state | rings)
    assert client.read(handle, 10, 5) == bytes(range(10, 15))
    assert client.attributes(leaf)["size"] == 256_000
    with pytest.raises(RefusedError) as caught:
        client.attributes(gone)
    assert name_of(caught.value) == "ESTALE"
    client.release(directory, Opcode.RELEASEDIR)
    again = client.driven.device.save()
    assert again["device_server_nodes"] == state["device_server_nodes"]


def test_a_reset_closes_everything(client: Client) -> None:
    client.open(client.look_up(b"file"))
    client.driven.device.write_status(0)
    assert client.server._folder.handles == {}
    client.server.close()
    client.server.close()


def test_what_cannot_be_shared(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be shared: no such file or directory; name a fol"):
        FuseServer(tmp_path / "none", readonly=False, option="--share none")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be shared: not a directory"):
        FuseServer(tmp_path / "file", readonly=False, option="--share file")
    for tag in ("", "x" * 37, "a\0b"):
        with pytest.raises(UsageError, match="is no tag; give 1 to 36 bytes"):
            check_tag(tag)


def test_garbage_gets_an_answer_and_harms_nothing(client: Client, folder: Path) -> None:
    chance = random.Random(3)
    for _ in range(3000):
        opcode = chance.choice([*Opcode, chance.randrange(60)])
        if opcode in (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT):
            continue
        name = chance.choice([b"file", b"deep", b"x", b"..", b"up", b"/"])
        numbers = [chance.choice([0, 1, 2, 3, 8, 0o100644, 1 << 63]) for _ in range(8)]
        body = struct.pack("<8Q", *numbers)[: chance.choice([0, 4, 8, 16, 24, 40, 64])]
        try:
            client.ask(opcode, chance.randrange(12), body + name + b"\0" + name + b"\0")
        except RefusedError:
            pass
        else:
            if opcode in (Opcode.DESTROY, Opcode.INIT):
                client.init()
    assert (folder.parent / "secret").read_text() == "not shared"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["secret", "shared"]
    assert client.driven.device.live
