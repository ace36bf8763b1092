"""The guest kernels, judged by Bochs: an independent machine, right where QEMU's TCG is not.

Bochs gets a firmware ROM made of ``rom_loader.rom`` and one flattened image, so no BIOS is needed;
the guest ends it by writing "Shutdown" to port 0x8900.
"""

import shutil
import struct
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

pytestmark = pytest.mark.oracle

ROOT = Path(__file__).resolve().parents[2]
ROWS = tomllib.loads((ROOT / "guest_kernel/tests/tests.toml").read_text())["test"]
BOCHS = shutil.which("bochs")
TIMEOUT_SECONDS = 30
PAGE = 4096
INFORMATION = 0x9000  # where rom_loader.S copies the multiboot information
MAGIC = {"multiboot1": 0x2BADB002, "multiboot2": 0x36D76289}  # what a loader says in EAX
HAS_MEMORY_AND_CMDLINE = 5
CONFIGURATION = """
romimage: file={folder}/rom
vgaromimage: file={folder}/vga
cpu: model=corei7_skylake_x, count={cpus}, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=0
memory: guest={memory}, host={memory}
display_library: rfb, options="timeout=0"
com1: enabled=1, mode=file, dev={folder}/serial
log: {folder}/log
panic: action=fatal
clock: sync=none
plugin_ctrl: unmapped=1, biosdev=0, speaker=0, gameport=0, iodebug=0, parallel=0
sound: driver=dummy, waveout=dummy, wavein=dummy, midiout=dummy
"""

if BOCHS is None:
    pytest.skip("bochs is not installed", allow_module_level=True)


def name_of(row: dict[str, Any]) -> str:
    """Test identity: the image and the words of its command line."""
    return "-".join([row["image"], *row["cmdline"].split()])


def flatten(path: Path) -> tuple[int, int, bytes]:
    """Load address, entry, and bytes of an ELF image's segments, one after another."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        segments = [s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD"]
        start = min(s["p_paddr"] for s in segments)
        end = max(s["p_paddr"] + s["p_filesz"] for s in segments)
        image = bytearray((end - start + 3) // 4 * 4)
        for s in segments:
            at = s["p_paddr"] - start
            image[at : at + s["p_filesz"]] = s.data()
        return start, elf.header["e_entry"], bytes(image)


def information1(above_kib: int, cmdline: bytes) -> bytes:
    """Multiboot 1 information: memory sizes, and the command line 0x100 bytes further on."""
    fields = (HAS_MEMORY_AND_CMDLINE, 640, above_kib, 0, INFORMATION + 0x100)
    return struct.pack("<5I", *fields).ljust(0x100, b"\0") + cmdline


def information2(above_kib: int, cmdline: bytes) -> bytes:
    """Multiboot 2 information: command line, a module, memory sizes, memory map, end."""
    ranges = struct.pack("<QQII", 0, 640 << 10, 1, 0) + struct.pack(
        "<QQII", 1 << 20, above_kib << 10, 1, 0
    )
    tags = [
        (1, cmdline),
        (3, struct.pack("<II", INFORMATION, INFORMATION + 0x700) + b"module words\0"),
        (4, struct.pack("<II", 640, above_kib)),
        (6, struct.pack("<II", 24, 0) + ranges),
        (0, b""),
    ]
    body = b""
    for kind, content in tags:
        size = 8 + len(content)
        body += (struct.pack("<II", kind, size) + content).ljust((size + 7) // 8 * 8, b"\0")
    return struct.pack("<II", 8 + len(body), 0) + body


def make_rom(row: dict[str, Any], images: Path) -> bytes:
    """The ROM: image first, the loader with its parameters in the last page (rom_loader.S)."""
    start, entry, image = flatten(images / row["image"])
    page = bytearray((images / "rom_loader.rom").read_bytes())
    size = 0x20000
    while size < len(image) + PAGE:
        size *= 2
    parameters = ((1 << 32) - size, len(image) // 4, start, entry, MAGIC[row["boot"]])
    struct.pack_into("<5I", page, 0, *parameters)
    above_kib = (int(row["memory"].removesuffix("M")) - 1) * 1024
    cmdline = row.get("bochs", {}).get("cmdline", row["cmdline"]).encode() + b"\0"
    make = information1 if row["boot"] == "multiboot1" else information2
    information = make(above_kib, cmdline)
    page[0x100 : 0x100 + len(information)] = information
    return image.ljust(size - PAGE, b"\0") + bytes(page)


def run(row: dict[str, Any], images: Path, folder: Path) -> str:
    """Serial output of one boot; a hang fails the test."""
    assert BOCHS is not None
    (folder / "rom").write_bytes(make_rom(row, images))
    (folder / "vga").write_bytes(bytes(0x8000))
    memory = row["memory"].removesuffix("M")
    text = CONFIGURATION.format(folder=folder, memory=memory, cpus=row.get("cpus", 1))
    (folder / "bochsrc").write_text(text)
    (folder / "commands").write_text("c\n")
    command = [BOCHS, "-q", "-f", str(folder / "bochsrc"), "-rc", str(folder / "commands")]
    try:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"no end after {TIMEOUT_SECONDS} s")
    serial = folder / "serial"
    if not serial.exists():
        pytest.skip("this Bochs does not start without a display")
    return serial.read_text(errors="replace").replace("\r", "")


@pytest.mark.parametrize("row", [r for r in ROWS if "bochs" in r["runs_on"]], ids=name_of)
def test_passes_on_bochs(row: dict[str, Any], images: Path, tmp_path: Path) -> None:
    output = run(row, images, tmp_path)
    lines = output.splitlines()
    defects = set(row.get("bochs", {}).get("defects", []))
    failed = {line.removeprefix("FAIL: ") for line in lines if line.startswith("FAIL: ")}
    assert f"TEST: {row['title']}" in lines
    assert not failed - defects, output[-4000:]
    assert not any(line.startswith("ABORT: ") for line in lines), output[-2000:]
    if row["status"] == 1:
        assert any(line.startswith("PASS: ") for line in lines)
        assert any(line.startswith("SUMMARY: ") for line in lines), output[-2000:]
