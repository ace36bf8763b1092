"""Which packages hold a kernel, by flavour, on Debian and on Ubuntu."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from vmm.cli.packages import PackageError, fetch, lookup


class Flavour(StrEnum):
    """A kernel's build: CLOUD for virtual machines, GENERIC for every PC."""

    CLOUD = "cloud"
    GENERIC = "generic"


METAPACKAGES: Final = {  # Debian's name, then Ubuntu's
    Flavour.CLOUD: ("linux-image-cloud-amd64", "linux-image-virtual"),
    Flavour.GENERIC: ("linux-image-amd64", "linux-image-generic"),
}
_PARTS: Final = re.compile(r"linux-(image|modules)-(unsigned-)?\d")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel's release, its bzImage, and the folder of its modules (lib/modules/RELEASE)."""

    package: str
    release: str
    image: Path
    modules: Path


def fetch_kernel(flavour: Flavour) -> Kernel:
    """Return a kernel of the flavour; PackageError if no package of it can be had."""
    failure = PackageError(f"no package holds a {flavour} kernel")
    for package in METAPACKAGES[flavour]:
        try:
            lookup(package)
        except PackageError as error:
            failure = error
        else:
            return fetch_metapackage(package)
    raise failure


def fetch_metapackage(package: str) -> Kernel:
    """Return the kernel that a metapackage depends on."""
    return _unpacked(package, lookup(package).depends)


def fetch_busybox() -> Path:
    """Return a statically linked busybox."""
    folder = fetch("busybox-static")
    for name in ("bin/busybox", "usr/bin/busybox"):
        if (folder / name).is_file():
            return folder / name
    raise PackageError("the package busybox-static holds no busybox")


def _unpacked(package: str, names: tuple[str, ...]) -> Kernel:
    """Fetch what a metapackage depends on: the image, and on Ubuntu the modules beside it."""
    folders, wanted = [], [name for name in names if _PARTS.match(name)]
    for name in wanted:
        folders.append(fetch(name))
        more = [part for part in lookup(name).depends if _PARTS.match(part)]
        wanted.extend(part for part in more if part not in wanted)
    image = _first(folders, "boot/vmlinuz-*", package)
    release = image.name.removeprefix("vmlinuz-")
    for prefix in ("", "usr/"):
        for folder in folders:
            if (modules := folder / f"{prefix}lib/modules/{release}").is_dir():
                return Kernel(package, release, image, modules)
    raise PackageError(f"{package} holds no modules for {release}")


def _first(folders: list[Path], pattern: str, package: str) -> Path:
    for folder in folders:
        if found := sorted(folder.glob(pattern)):
            return found[0]
    raise PackageError(f"{package} leads to no package with {pattern}")
