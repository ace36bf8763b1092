"""Programs of Debian's that are no part of an initramfs, and the libraries they are linked to.

They go into an archive of their own, which the kernel unpacks over the initramfs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

from vmm.cli.cpio import Archive
from vmm.cli.packages import PackageError, fetch, lookup

INTERPRETER = "ld-linux-x86-64.so.2"


def program_archive(package: str, program: str) -> bytes:
    """Return an archive with bin/PROGRAM and what ld.so(8) will look for, in /lib."""
    archive = Archive()
    path = fetch(package) / "usr" / "bin" / program
    for folder in ("bin", "lib", "lib64"):
        archive.folder(folder)
    archive.file(f"bin/{program}", path.read_bytes(), 0o755)
    for name, library in sorted(_libraries(package, path).items()):
        place = "lib64" if name == INTERPRETER else "lib"
        archive.file(f"{place}/{name}", library.read_bytes(), 0o755)
    return archive.finished()


def _libraries(package: str, program: Path) -> dict[str, Path]:
    """Return the shared libraries of a program, from the packages that its own depends on."""
    folders, opened = _dependencies(package), list[Path]()
    found: dict[str, Path] = {}
    wanted = _needed(program)
    while wanted:
        name = wanted.pop()
        while name not in found:
            if path := _in(opened, name):
                found[name] = path
                wanted += _needed(path)
            elif (folder := next(folders, None)) is not None:
                opened.append(folder)
            else:
                raise PackageError(f"no package that {package} depends on has {name}")
    return found


def _in(folders: list[Path], name: str) -> Path | None:
    return next((path for folder in folders for path in folder.rglob(name) if path.is_file()), None)


def _needed(program: Path) -> list[str]:
    with program.open("rb") as file:
        section: Any = ELFFile(file).get_section_by_name(".dynamic")
        return [tag.needed for tag in section.iter_tags("DT_NEEDED")]


def _dependencies(package: str) -> Iterator[Path]:
    """Walk through the packages behind one, the near ones first; virtual ones are left out."""
    queue, seen = list(lookup(package).depends), {package}
    for name in queue:
        if name in seen:
            continue
        seen.add(name)
        try:
            yield fetch(name)
        except PackageError:
            continue
        queue += lookup(name).depends
