"""What a loader is given beside the image: memory size, words for the guest, modules."""

from dataclasses import dataclass

from vmm.config import KernelEntry
from vmm.errors import UsageError


@dataclass(frozen=True, slots=True)
class BootModule:
    """The bytes of a module, its file's base name, and its own command line."""

    name: str
    data: bytes
    cmdline: str = ""

    @property
    def words(self) -> bytes:
        """Return name and command line as the guest reads them, without the final zero."""
        return guest_text(f"{self.name} {self.cmdline}".rstrip())


@dataclass(frozen=True, slots=True)
class BootRequest:
    """The parameters of a boot. ``memory`` is in bytes; ``image_name`` is a base name.

    ``kernel_entry`` and ``kaslr`` (a seed, or None) are for bzImages; ``rsdp`` is the address of
    ACPI's root pointer, 0 without tables; ``screen`` says that there is VGA text memory.

    Only base names reach the guest: the same image gives the same digest wherever it lies.
    """

    memory: int
    cmdline: str = ""
    image_name: str = "image"
    modules: tuple[BootModule, ...] = ()
    kernel_entry: KernelEntry = KernelEntry.AUTO
    kaslr: int | None = None
    rsdp: int = 0
    screen: bool = False


def guest_text(text: str) -> bytes:
    """Encode for the guest; names with undecodable bytes come back as they were on disk."""
    return text.encode("utf-8", "surrogateescape")


def refuse_extras(request: BootRequest, what: str) -> None:
    """Refuse a command line or modules for an image whose protocol cannot receive them."""
    option = "--cmdline" if request.cmdline else "--initrd" if request.modules else ""
    if option:
        raise UsageError(
            f"{option} cannot reach a {what}, which has no boot protocol; "
            "give the image a multiboot header or leave the option out"
        )
