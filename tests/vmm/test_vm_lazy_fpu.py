"""CR0.TS set, as kernels that switch the FPU lazily leave it: what is no FPU instruction runs.

Intel SDM, "INVPCID": no #NM among its exceptions, nor for MONITOR's and VMX's neighbours in 0F 38.
Xen runs so.
"""

import pytest

from tests.images import EXIT, elf64
from vmm import VM

SET_TS = "mov rax, cr0; or rax, 8; mov cr0, rax"


def test_invpcid() -> None:
    text = f"{SET_TS}; mov ebx, 2; invpcid rbx, [0x200000]; mov eax, 3; {EXIT}"
    with VM(elf64(text), max_instructions=1000) as vm:
        assert vm.run().status == 3 << 1 | 1


@pytest.mark.parametrize("instruction", ["fnop", "paddb mm0, mm1", "pshufb xmm0, xmm1"])
def test_the_fpus_own_are_not_available(instruction: str) -> None:
    with VM(elf64(f"{SET_TS}; {instruction}; mov eax, 3; {EXIT}"), max_instructions=1000) as vm:
        assert vm.run().reason == "triple_fault"  # #NM, and no IDT
