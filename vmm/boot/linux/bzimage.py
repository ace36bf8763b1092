"""A bzImage: started by its own entry, or with the kernel inside unpacked by the host.

Linux, "The Linux/x86 Boot Protocol", "64-bit boot protocol" and "32-bit boot protocol": RSI is the
zero page, CS is selector 0x10, the data segments 0x18; the 64-bit entry, 0x200 into the
protected-mode code, wants everything identity-mapped. The kernel inside has the same contract at
its ELF entry.
"""

from vmm.boot.elf import MAGIC, ElfImage, load_segments
from vmm.boot.entry import LINUX_SELECTORS, long, protected
from vmm.boot.layout import Layout
from vmm.boot.linux.checksum import is_damaged
from vmm.boot.linux.compression import format_of, unpack
from vmm.boot.linux.header import SetupHeader, XLoadFlags, parse_header
from vmm.boot.linux.initrd import Initrd, load_initrd
from vmm.boot.linux.relocations import Shift, choose_shift, relocate, relocations_of
from vmm.boot.linux.zero_page import check_cmdline, load_zero_page
from vmm.boot.memmap import HOLE_START
from vmm.boot.plan import BootPlan, StartState
from vmm.boot.request import BootRequest
from vmm.config import KernelEntry
from vmm.errors import UsageError

_ENTRY_64 = 0x200


def plan_bzimage(data: bytes, request: BootRequest) -> BootPlan:
    """Plan a bzImage; ``request.kernel_entry`` says which of the two ways."""
    header = parse_header(data)
    check_cmdline(request.cmdline, header.cmdline_size)
    layout = Layout(request.memory)
    shipped = request.kernel_entry is KernelEntry.DECOMPRESSOR
    if not shipped and (content := _unpacked(data, header)):
        return _plan_unpacked(layout, content, header, request)
    if request.kaslr is not None:
        raise UsageError(
            "--kaslr needs a kernel that ring1 unpacks; leave it out: this kernel's own "
            "decompressor shifts it unless --cmdline has nokaslr"
        )
    return _plan_as_shipped(layout, data, header, request)


def _unpacked(data: bytes, header: SetupHeader) -> bytes:
    """Return the ELF file inside (and what follows it), or nothing if it must unpack itself."""
    at = header.code_at + header.payload_offset
    payload = data[at : at + header.payload_length]
    compression = format_of(payload)
    if compression is None or not header.is_64bit:
        return b""
    content = unpack(payload, compression)
    if not compression.checked and is_damaged(data, header):
        raise UsageError(
            f"the bzImage with its {compression.name}-compressed kernel inside is damaged: "
            "its checksum is wrong; copy it again"
        )
    return content if content.startswith(MAGIC) else b""


def kernel_inside(data: bytes) -> bytes:
    """Return the ELF file inside a bzImage, nothing if the host cannot unpack it."""
    return _unpacked(data, parse_header(data))


def _plan_as_shipped(
    layout: Layout, data: bytes, header: SetupHeader, request: BootRequest
) -> BootPlan:
    code = data[header.code_at :]
    address = header.load_address
    layout.load(address, code, "the bzImage", max(header.init_size, len(code)))
    initrd = _load_initrd(layout, header, request)
    page = load_zero_page(layout, request, header, initrd, kaslr=False)
    entry = address + (_ENTRY_64 if header.is_64bit else 0)
    state = _start(layout, header, entry, page)
    return BootPlan("bzimage", layout.placements(), state)


def _plan_unpacked(
    layout: Layout, content: bytes, header: SetupHeader, request: BootRequest
) -> BootPlan:
    image = ElfImage(content)
    kaslr = request.kaslr is not None and "nokaslr" not in request.cmdline.split()
    shift = Shift()
    if kaslr:
        entry, initrd, shift = _load_shifted(layout, image, header, request)
    else:
        load_segments(layout, image)
        entry = image.physical(image.header["e_entry"])
        initrd = _load_initrd(layout, header, request)
    page = load_zero_page(layout, request, header, initrd, kaslr=kaslr)
    state = _start(layout, header, entry, page)
    slide = shift.virtual, shift.physical
    return BootPlan("linux64", layout.placements(), state, slide=slide)


def _load_shifted(
    layout: Layout, image: ElfImage, header: SetupHeader, request: BootRequest
) -> tuple[int, Initrd, Shift]:
    """Place the initrd, then the kernel shifted below it; return the entry, both, and how far."""
    assert request.kaslr is not None
    found = relocations_of(image.data, image)
    initrd = _load_initrd(layout, header, request)
    start, end = image.span()
    top = initrd.start if initrd.size else min(request.memory, HOLE_START)
    shift = choose_shift(request.kaslr, header, (start, end), top)
    memory = image.flattened()
    relocate(memory, start, found, shift.virtual)
    layout.load(start + shift.physical, bytes(memory), "the kernel", end - start)
    return image.physical(image.header["e_entry"]) + shift.physical, initrd, shift


def _load_initrd(layout: Layout, header: SetupHeader, request: BootRequest) -> Initrd:
    above = bool(header.xloadflags & XLoadFlags.CAN_BE_LOADED_ABOVE_4G)
    return load_initrd(layout, request.modules, header.initrd_addr_max, above_4g=above)


def _start(layout: Layout, header: SetupHeader, entry: int, page: int) -> StartState:
    start = long if header.is_64bit else protected
    return start(layout, entry, {"rsi": page}, LINUX_SELECTORS)
