"""Programs of Debian's that are no part of an initramfs, and the libraries they are linked to.

They go into an archive of their own, which the kernel unpacks over the initramfs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

from vmm.cli.cpio import Archive
from vmm.cli.packages import PackageError, fetch

INTERPRETER = "ld-linux-x86-64.so.2"


def program_archive(package: str, program: str, packages: Sequence[str]) -> bytes:
    """Return an archive with bin/PROGRAM and what ld.so(8) will look for, in /lib.

    ``packages`` hold the shared libraries that are needed.
    """
    archive = Archive()
    path = fetch(package) / "usr" / "bin" / program
    for folder in ("bin", "lib", "lib64"):
        archive.folder(folder)
    archive.file(f"bin/{program}", path.read_bytes(), 0o755)
    for name, library in sorted(_libraries(path, [fetch(each) for each in packages]).items()):
        place = "lib64" if name == INTERPRETER else "lib"
        archive.file(f"{place}/{name}", library.read_bytes(), 0o755)
    return archive.finished()


def _libraries(program: Path, folders: list[Path]) -> dict[str, Path]:
    """Return the shared libraries of a program by name, those of the libraries too."""
    found: dict[str, Path] = {}
    wanted = _needed(program)
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = _in(folders, name)
            wanted += _needed(found[name])
    return found


def _in(folders: list[Path], name: str) -> Path:
    for folder in folders:
        for path in folder.rglob(name):
            if path.is_file():
                return path
    raise PackageError(f"no package that was named has {name}")


def _needed(program: Path) -> list[str]:
    with program.open("rb") as file:
        section: Any = ELFFile(file).get_section_by_name(".dynamic")
        return [tag.needed for tag in section.iter_tags("DT_NEEDED")]
