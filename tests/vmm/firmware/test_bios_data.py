"""The BIOS data area: the words that kernels read, and that an image may lie over it."""

import struct

from tests.images import EXIT, OFF, elf64
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
