"""Tell image formats apart by their first bytes."""

from typing import Final

PROBED: Final = 512

_MAGIC: Final = (
    (0, b"QFI\xfb", "qcow2"),  # QEMU, docs/interop/qcow2: version 1 has the same magic
    (0, b"QED\0", "qed"),  # QEMU, docs/interop/qed_spec
    (0, b"KDMV", "vmdk"),  # VMware Virtual Disk Format 1.1, hosted sparse extent
    (0, b"COWD", "vmdk"),  # the same, ESX server sparse extent
    (0, b"# Disk DescriptorFile", "vmdk"),  # the same, text descriptor
    (0, b"vhdxfile", "vhdx"),  # Microsoft, MS-VHDX
    (0, b"conectix", "vpc"),  # Microsoft, Virtual Hard Disk Image Format Specification
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),  # VirtualBox, VDICore.h
    (0, b"LUKS\xba\xbe", "luks"),  # LUKS On-Disk Format Specification
    (0, b"WithoutFreeSpace", "parallels"),  # QEMU, docs/interop/parallels
    (0, b"WithouFreSpacExt", "parallels"),
)


def probe(head: bytes) -> str:
    """Return the format's name as QEMU has it; "raw" for what is none of the others."""
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    return "raw"
