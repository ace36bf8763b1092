"""From a Config to a boot plan: reading the image and the modules, or the built-in demo."""

import stat
from pathlib import Path

from vmm.boardmap import ACPI_TABLES
from vmm.boot.elf import MAGIC
from vmm.boot.identify import plan
from vmm.boot.linux.header import is_bzimage
from vmm.boot.plan import BootPlan
from vmm.boot.request import BootModule, BootRequest
from vmm.config import Config, KernelEntry
from vmm.errors import UsageError

DEMO = "hello.elf"


def plan_for(config: Config) -> BootPlan:
    """Read what the configuration names and plan its start; errors name the file."""
    name, data = _image(config.image)
    modules = tuple(
        BootModule(module.path.name, read_file(module.path, "--initrd"), module.cmdline)
        for module in config.initrds
    )
    auto = config.kernel_entry is KernelEntry.AUTO
    if "xen" in config.dialects and auto and is_bzimage(data):  # as Xen starts it: by its PVH entry
        from vmm.boot.linux.bzimage import kernel_inside

        data = kernel_inside(data) or data
    request = BootRequest(
        config.memory,
        config.cmdline,
        name,
        modules,
        kernel_entry=config.kernel_entry,
        kaslr=config.kaslr,
        rsdp=ACPI_TABLES[0],
        screen=config.screen,
    )
    try:
        return plan(data, request)
    except UsageError as error:
        where = config.image if isinstance(config.image, Path) else name
        raise type(error)(f"{where}: {error}") from error


def symbol_file(config: Config) -> bytes:
    """Return the ELF file that has the image's symbols, nothing where there is none.

    Of a bzImage that is the kernel inside, unpacked again: nobody keeps its 50 MB meanwhile.
    """
    _, data = _image(config.image)
    if is_bzimage(data):
        from vmm.boot.linux.bzimage import kernel_inside  # with what unpacks kernels

        return kernel_inside(data)
    return data if data.startswith(MAGIC) else b""


def read_file(path: Path, what: str) -> bytes:
    """Return the content of a regular file, or refuse it by name."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{what} {path} is not a regular file; give a file")
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{what} {path}: {reason}; give a file that can be read") from None
    except ValueError:  # a name with a zero byte
        raise UsageError(f"{what} {str(path)!r} is not a file name; give a file") from None


def demo_image() -> bytes:
    """Return the built-in demo kernel."""
    from importlib.resources import files  # slow to import, and only the demo needs it

    try:
        return (files("vmm") / "images" / DEMO).read_bytes()
    except OSError:
        raise UsageError(
            f"the built-in demo {DEMO} has not been built; run make guest, or name an image"
        ) from None


def _image(image: Path | bytes | None) -> tuple[str, bytes]:
    if image is None:
        return DEMO, demo_image()
    if isinstance(image, bytes):
        return "image", image
    return image.name, read_file(image, "image")
