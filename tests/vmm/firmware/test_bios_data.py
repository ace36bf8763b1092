"""The BIOS data area: the words that kernels read, and that an image may lie over it."""

import struct

from tests.images import EXIT, OFF, elf64, real16
from vmm import VM
from vmm.boot.memmap import LOW_END


def test_the_words_that_kernels_read() -> None:
    """Xen, arch/x86/boot/head.S; Linux, arch/x86/kernel/ebda.c: 0x40e and 0x413."""
    with VM(elf64(OFF)) as vm:
        ebda, equipment = struct.unpack("<HH", vm.memory.read(0x40E, 4))
        assert ebda << 4 == LOW_END
        assert equipment >> 9 & 7 == 1  # serial ports
        assert struct.unpack("<H", vm.memory.read(0x413, 2))[0] << 10 == LOW_END
        assert vm.memory.read(0x400, 2) == b"\xf8\x03"


def test_an_image_may_lie_over_it() -> None:
    with VM(elf64(f"mov eax, 5; {EXIT}", at=0x400)) as vm:
        assert vm.run().status == 11


def test_an_interrupt_without_a_handler_returns() -> None:
    """Firmware leaves an IRET behind each vector, and a handler of the image's own is called.

    That one, for vector 0x21, is `add bx, 0x10; iret` at 0x600.
    """
    text = f"""
        xor ax, ax; mov ds, ax; mov ss, ax; mov sp, 0x7000; xor ebx, ebx
        int 0x15; inc bx; int 0x80; inc bx; int 0xff; inc bx
        mov dword ptr [0x600], 0xcf10c383; mov word ptr [0x84], 0x600; mov word ptr [0x86], 0
        int 0x21; mov eax, ebx; {EXIT}
    """
    with VM(real16(text)) as vm:
        result = vm.run()
        assert (result.reason, vm.regs.rbx & 0xFFFF) == ("debug_exit", 0x13)
