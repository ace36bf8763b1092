"""A few of a kernel's modules with what they need, for an initramfs in which modprobe works.

Packages carry no modules.dep (depmod runs when they are installed): names, dependencies and aliases
are read from the .modinfo section of each module, as depmod does.
"""

import io
import lzma
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

WANTED: Final = (
    *("virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng", "virtio_console"),
    *("xen_blkfront", "xen_netfront"),
    *("virtio_balloon", "virtiofs", "af_packet", "ext4", "e1000"),
)
"""For the devices that a guest can be given here, and to use them; built-in ones are skipped."""


@dataclass(frozen=True, slots=True)
class Module:
    """A loadable module, unpacked; ``path`` is relative to the folder of the modules."""

    name: str
    path: str
    data: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


def select(folder: Path, wanted: Iterable[str] = WANTED) -> list[Module]:
    """Return the wanted modules and all they depend on, each after what it needs."""
    files = {_name(path): path for path in sorted(folder.rglob("*.ko*"))}
    chosen: dict[str, Module] = {}

    def add(name: str) -> None:
        if name in chosen or name not in files:
            return  # built in, or not built
        module = _read(folder, files[name])
        for needed in module.depends:
            add(needed)
        chosen[name] = module

    for name in wanted:
        add(name)
    return list(chosen.values())


def dependency_file(modules: list[Module]) -> bytes:
    """Return modules.dep for ``modules`` in loading order.

    After each path stand those to load before it, as depmod puts them: the first to load is last.
    """
    known = {module.name: module for module in modules}
    order = {module.name: index for index, module in enumerate(modules)}

    def needed(module: Module) -> set[str]:
        direct = {name for name in module.depends if name in known}
        return direct.union(*(needed(known[name]) for name in direct))

    lines = []
    for module in modules:
        before = sorted(needed(module), key=lambda name: -order[name])
        lines.append(" ".join([f"{module.path}:", *(known[name].path for name in before)]))
    return "".join(f"{line}\n" for line in lines).encode()


def alias_file(modules: list[Module]) -> bytes:
    """Return modules.alias: a pattern for what a device says of itself, and the module."""
    return "".join(
        f"alias {alias} {module.name}\n" for module in modules for alias in module.aliases
    ).encode()


def _name(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")


def _read(folder: Path, path: Path) -> Module:
    data = _unpacked(path)
    info = [row.partition("=")[::2] for row in _modinfo(data)]
    depends = ",".join(value for key, value in info if key == "depends")
    plain = path.relative_to(folder).as_posix().partition(".ko")[0] + ".ko"
    return Module(
        _name(path), plain, data,
        tuple(name.replace("-", "_") for name in depends.split(",") if name),
        tuple(value for key, value in info if key == "alias"),
    )  # fmt: skip


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    match path.suffix:
        case ".xz":
            return lzma.decompress(data)
        case ".zst":
            import zstandard

            with zstandard.ZstdDecompressor().stream_reader(data) as reader:
                return bytes(reader.read())
        case _:
            return data


def _modinfo(data: bytes) -> list[str]:
    from elftools.elf.elffile import ELFFile

    section = ELFFile(io.BytesIO(data)).get_section_by_name(".modinfo")
    rows = section.data() if section else b""
    return [row.decode("utf-8", "replace") for row in rows.split(b"\0") if row]
