"""From a name to an image: the format told, the backing chain opened, the mode applied."""

from contextlib import ExitStack
from pathlib import Path
from typing import Final

from vmm.errors import UsageError
from vmm.storage.hostfile import HostFile
from vmm.storage.image import Image, StorageError
from vmm.storage.overlay import Overlay
from vmm.storage.probe import PROBED, probe
from vmm.storage.qcow2.header import Header
from vmm.storage.qcow2.image import Qcow2Image
from vmm.storage.raw import RawImage

FORMATS: Final = ("raw", "qcow2")
_LONGEST_CHAIN: Final = 32


def open_image(
    path: Path, *, kind: str | None = None, read_only: bool = False, snapshot: bool = False
) -> Image:
    """Open a disk image of a kind in FORMATS, which is told from its content if None.

    `snapshot` keeps writes in memory. Raises UsageError, one line, if it cannot be used; nothing
    is written to it before the guest writes.
    """
    image = _open(path, kind, read_only=read_only or snapshot, depth=0)
    return Overlay(image) if snapshot and not read_only else image


def _open(path: Path, known: str | None, *, read_only: bool, depth: int) -> Image:
    if depth > _LONGEST_CHAIN:
        raise UsageError(f"--disk {path} has too many backing files behind it, or a circle of them")
    file = HostFile(path, read_only=read_only)
    with ExitStack() as cleanup:
        cleanup.callback(file.close)
        image = _of_format(file, known, depth)
        cleanup.pop_all()
    return image


def _of_format(file: HostFile, known: str | None, depth: int) -> Image:
    try:
        kind = known or probe(file.read(0, PROBED))
        if kind == "raw":
            return RawImage(file, guarded=known is None)
        if kind != "qcow2":
            raise UsageError(
                f"--disk {file.path} is in the format {kind!r}, which is not supported; "
                "convert it (qemu-img convert -O qcow2)"
            )
        if probe(file.read(0, PROBED)) != "qcow2":
            raise UsageError(f"--disk {file.path} is not a qcow2 image; leave format=qcow2 out")
        header = Header.read(file, writable=not file.read_only)
        with ExitStack() as cleanup:
            backing = _open_backing(file.path, header, depth)
            if backing is not None:
                cleanup.callback(backing.close)
            image = Qcow2Image(file, header, backing)
            cleanup.pop_all()
        return image
    except StorageError as error:
        raise UsageError(f"--disk {error}; give an image that can be read") from None


def _open_backing(path: Path, header: Header, depth: int) -> Image | None:
    name = header.backing
    if not name:
        return None
    where = Path(name.removeprefix("file:"))
    if name.startswith("json:") or ("://" in name and not where.exists()):
        raise UsageError(
            f"--disk {path} has the backing file {name!r}, which is not a local file; rebase it "
            "(qemu-img rebase)"
        )
    return _open(
        path.parent / where, header.backing_format or None, read_only=True, depth=depth + 1
    )
