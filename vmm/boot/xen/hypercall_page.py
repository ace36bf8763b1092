"""The page of stubs that a PV guest calls for hypercalls: 32 bytes each, at number * 32.

xen/arch/x86/pv/hypercall.c: push rcx; push r11; mov eax, number; syscall; pop r11; pop rcx; ret.
iret has no way back: it saves RAX too, which its frame begins with.
"""

from typing import Final

SLOT, SLOTS, IRET = 32, 64, 23
PAGE: Final = 4096


def hypercall_page() -> bytes:
    """Return it; what no stub fills is INT3."""
    page = bytearray(b"\xcc" * PAGE)
    for number in range(SLOTS):
        load = b"\xb8" + number.to_bytes(4, "little")
        if number == IRET:
            code = b"\x51\x41\x53\x50" + load + b"\x0f\x05"
        else:
            code = b"\x51\x41\x53" + load + b"\x0f\x05\x41\x5b\x59\xc3"
        page[number * SLOT : number * SLOT + len(code)] = code
    return bytes(page)
