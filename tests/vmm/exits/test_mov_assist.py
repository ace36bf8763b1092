"""The decode assist of an EPT violation: a plain MOV needs no emulator.

AMD's manual has the term ("Decode Assists"); our processor offers it beside VT-x. It must say what
the emulator says where it says anything.
"""

import pytest

from tests.images import EXIT, elf64
from vmm import VM

APIC = 0xFEE00000
VERSION = APIC + 0x30
SPURIOUS = APIC + 0xF0


@pytest.mark.held_by("ept", why="looks at EPT violations")
@pytest.mark.parametrize(
    ("text", "size"),
    [
        (f"mov eax, {VERSION}; mov ebx, [rax]", 4),
        (f"mov eax, {VERSION}; mov rbx, [rax]", 8),
        (f"movabs eax, dword ptr [{VERSION}]; mov ebx, eax", 4),
        (f"movabs al, byte ptr [{VERSION}]; movzx ebx, al", 1),
        (f"mov eax, {VERSION}; movzx ebx, byte ptr [rax]", 0),
        (f"mov eax, {VERSION}; mov ebx, 0; add ebx, [rax]", 0),
    ],
)
def test_what_the_assist_tells(text: str, size: int) -> None:
    """Bytes moved, 0 where the emulator must look; the register gets the same either way."""
    seen = []
    with VM(elf64(text + ";" + EXIT)) as vm:
        for vmexit in vm:
            if vmexit.name == "EPT_VIOLATION":
                seen.append(vm.vcpus[0].vmcs.native.mov_size)
        assert vm.regs.rbx & 0xFF == 0x14  # the version of an integrated local APIC
    assert seen == [size]


@pytest.mark.parametrize(
    "text",
    [
        f"mov eax, 0x1ff; movabs dword ptr [{SPURIOUS}], eax",
        f"mov eax, 0x1ff; mov edx, {SPURIOUS}; mov [rdx], eax",
        f"mov edx, {SPURIOUS}; mov dword ptr [rdx], 0x1ff",
        f"mov eax, {SPURIOUS}; mov r9d, 0x1ff; mov [rax], r9d",
    ],
)
def test_a_store_arrives_whole(text: str) -> None:
    with VM(elf64(f"{text}; movabs eax, dword ptr [{SPURIOUS}]; mov ebx, eax; {EXIT}")) as vm:
        assert vm.run().reason == "debug_exit"
        assert vm.regs.rbx == 0x1FF
