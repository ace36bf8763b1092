"""What is plainly not a kernel for this machine, by name: each refused with its remedy.

Signatures are from file(1)'s magic and from the formats' own documents. The table is data; order
matters only where one signature begins another.
"""

from dataclasses import dataclass

from vmm.errors import UsageError


@dataclass(frozen=True, slots=True)
class Foreign:
    """A signature at an offset, what it announces, and what to do about it."""

    offset: int
    magic: bytes
    what: str
    remedy: str


_UNPACK = "unpack it first"
_NOT_CODE = "give an x86 kernel image"
_DISK = "give the kernel itself: disk images need a BIOS, which ring1 does not have"

FOREIGN = (
    Foreign(0, b"\x1f\x8b\x08", "gzip-compressed", _UNPACK),
    Foreign(0, b"\xfd7zXZ\0", "xz-compressed", _UNPACK),
    Foreign(0, b"\x28\xb5\x2f\xfd", "zstd-compressed", _UNPACK),
    Foreign(0, b"BZh91AY&SY", "bzip2-compressed", _UNPACK),
    Foreign(0, b"\x04\x22\x4d\x18", "lz4-compressed", _UNPACK),
    Foreign(0, b"\x89LZO\0", "lzop-compressed", _UNPACK),
    Foreign(0, b"PK\x03\x04", "a zip archive", _UNPACK),
    Foreign(0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    Foreign(0, b"\x89PNG\r\n\x1a\n", "a PNG picture", _NOT_CODE),
    Foreign(0, b"\xff\xd8\xff", "a JPEG picture", _NOT_CODE),
    Foreign(0, b"GIF8", "a GIF picture", _NOT_CODE),
    Foreign(0, b"%PDF-", "a PDF document", _NOT_CODE),
    Foreign(0, b"\0asm\x01\0\0\0", "a WebAssembly module", _NOT_CODE),
    Foreign(0, b"\xca\xfe\xba\xbe", "a Java class or universal Mach-O file", "give an ELF image"),
    Foreign(0, b"\xce\xfa\xed\xfe", "a Mach-O file", "give an ELF image"),
    Foreign(0, b"\xcf\xfa\xed\xfe", "a Mach-O file", "give an ELF image"),
    Foreign(0, b"!<arch>\n", "an archive of object files", "link it into an ELF image"),
    Foreign(0, b"070701", "a cpio archive", "pass it with --initrd beside a kernel"),
    Foreign(0, b"070702", "a cpio archive", "pass it with --initrd beside a kernel"),
    Foreign(0, b"\x27\x05\x19\x56", "a U-Boot image", "give the ELF kernel inside it"),
    Foreign(0, b"\xd0\x0d\xfe\xed", "a device tree", _NOT_CODE),
    Foreign(0, b"hsqs", "a squashfs file system", _NOT_CODE),
    Foreign(0, b"QFI\xfb", "a qcow2 disk image", _DISK),
    Foreign(0, b"KDMV", "a VMDK disk image", _DISK),
    Foreign(0x8001, b"CD001", "a CD image", _DISK),
    Foreign(257, b"ustar", "a tar archive", _UNPACK),
    Foreign(0x38, b"ARM\x64", "a Linux kernel for ARM64", _NOT_CODE),
    Foreign(0x38, b"RSC\x05", "a Linux kernel for RISC-V", _NOT_CODE),
    Foreign(0x24, b"\x18\x28\x6f\x01", "a Linux kernel for ARM", _NOT_CODE),
)

_TEXT = frozenset(range(0x20, 0x7F)) | frozenset(b"\t\n\r\f\x0b\x1b")


def refuse_foreign(data: bytes) -> None:
    """Raise UsageError if ``data`` is something else than a bare x86 image."""
    if not data:
        raise UsageError("the image is empty; give a kernel image")
    for row in FOREIGN:
        if data[row.offset : row.offset + len(row.magic)] == row.magic:
            raise UsageError(f"the image is {row.what}; {row.remedy}")
    _refuse_executable(data)
    if data.startswith(b"#!") or _is_text(data):
        raise UsageError("the image is text, not machine code; give a kernel image")
    if not any(data):
        raise UsageError("the image holds only zero bytes; give a kernel image")


def refuse_bios(data: bytes) -> None:
    """Refuse boot sectors and whole disks: 55 AA at the end of the first sector."""
    if data[510:512] == b"\x55\xaa":
        raise UsageError(
            "the image is a boot sector: it needs a BIOS, which ring1 does not have; "
            "give an ELF, multiboot or flat image"
        )


def _refuse_executable(data: bytes) -> None:
    if data[:2] != b"MZ":
        return
    header = int.from_bytes(data[0x3C:0x40], "little")
    if data[header : header + 4] == b"PE\0\0":
        raise UsageError(
            "the image is a UEFI or Windows program (PE): it needs a UEFI, which ring1 does not "
            "have; give an ELF, multiboot or flat image"
        )
    if len(data) >= 0x40:
        raise UsageError("the image is a DOS program: it needs DOS; give an ELF or flat image")


def _is_text(data: bytes) -> bool:
    """Tell text by its first 4 KiB: printable ASCII, or UTF-8 that has no control characters."""
    head = data[:4096]
    if all(byte in _TEXT for byte in head):
        return True
    if any(byte < 0x20 and byte not in _TEXT for byte in head) or len(head) < 64:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return len(head) == 4096 and error.start > 4092  # a character cut by the window
    return True
