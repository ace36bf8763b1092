"""The same image under QEMU's own multiboot loader: what a guest reads must agree.

The image writes its information structure, command line, memory map and first module's string to
port 0xe9 and leaves through port 0xf4.
"""

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from vmm.boot.identify import plan
from vmm.boot.request import BootModule, BootRequest

QEMU = shutil.which("qemu-system-x86_64")
MIB = 1 << 20
INFO, TEXT = 116, 64
DUMP = bytes.fromhex(
    "fc 66bae900"  # cld; mov dx, 0xe9
    "89de b974000000 f36e"  # 116 bytes from ebx
    "8b7310 b940000000 f36e"  # 64 bytes of the command line
    "8b4318 8b7008 b940000000 f36e"  # 64 bytes of the first module's string
    "8b7330 8b4b2c f36e"  # the memory map
    "66baf400 ee f4"  # out 0xf4, al; hlt
)


@pytest.mark.oracle
@pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not installed")
def test_a_guest_reads_what_qemu_would_tell_it(forge: Any, ram: Any, tmp_path: Path) -> None:
    image = forge.elf32(forge.part(0x400000, DUMP), extra=forge.multiboot1())
    kernel, module, out = tmp_path / "k.elf", tmp_path / "m.bin", tmp_path / "out"
    kernel.write_bytes(image)
    module.write_bytes(b"module")
    subprocess.run(
        [
            *(
                str(QEMU),
                "-kernel",
                kernel.name,
                "-append",
                "one two",
                "-initrd",
                f"{module.name} x=1",
            ),
            *("-m", "128M", "-display", "none", "-net", "none", "-debugcon", f"file:{out.name}"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
        ],
        cwd=tmp_path,  # relative names: QEMU passes them on as they are given
        check=False,
        timeout=60,
    )
    theirs = out.read_bytes()
    request = BootRequest(
        128 * MIB, "one two", kernel.name, (BootModule(module.name, b"module", "x=1"),)
    )
    made = plan(image, request)
    memory, base = ram(made), made.start.gpr["rbx"]
    info = memory.words(base, "<13I")
    other = struct.unpack_from("<13I", theirs)
    wanted = 0b1001101  # memory, command line, modules, map
    assert info[0] & wanted == other[0] & wanted == wanted
    assert info[1] == other[1]  # mem_lower
    assert abs(info[2] - other[2]) <= 128  # mem_upper: QEMU's BIOS keeps up to 128 KiB at the top
    assert info[5] == other[5] == 1
    ours = [memory.text(info[4]), memory.text(memory.words(info[6] + 8, "<I")[0])]
    texts = [theirs[at : at + TEXT].split(b"\0")[0] for at in (INFO, INFO + TEXT)]
    assert texts == ours
    rows = memory.read(info[12], info[11])
    assert usable_bytes(rows) - usable_bytes(theirs[INFO + 2 * TEXT :]) <= 256 * 1024


def usable_bytes(rows: bytes) -> int:
    """Walk a memory map as a kernel does: the size field does not count itself."""
    total = at = 0
    while at + 24 <= len(rows):
        size, _, length, kind = struct.unpack_from("<IQQI", rows, at)
        total += length if kind == 1 else 0
        at += size + 4
    return total
