"""Asynchronous page faults, told by a guest kernel while the test swaps its pages out."""

from pathlib import Path

import pytest

from hwmodel.vmx.exit import Exit
from tests.guest.test_guest_kernels import verdicts
from vmm import VM, Result

SWAP_PORT = 0x6F0


def run(images: Path, dialect: str, mmu: str = "ept") -> tuple[Result, str, list[int]]:
    serial = bytearray()
    pages: list[int] = []
    with VM(
        images / "kvm_fault.elf", memory="64M", dialects=dialect, serial_output=serial.extend,
        max_instructions=400_000_000, mmu=mmu,
    ) as vm:  # fmt: skip

        @vm.on_exit("IO_INSTRUCTION")
        def swap(vmexit: Exit) -> None:
            if vmexit.qualification >> 16 == SWAP_PORT:
                pages.append(vm.regs.rax & 0xFFFF_FFFF)
                vm.pager.swap_out(pages[-1], 4096)

        result = vm.run()
    return result, serial.decode(errors="replace").replace("\r", ""), pages


@pytest.mark.parametrize("mmu", ["ept", "shadow"])
def test_the_guest_is_told(images: Path, mmu: str) -> None:
    result, output, pages = run(images, "kvm", mmu)
    assert not verdicts(output, "FAIL"), output
    assert "SUMMARY" in output, result.message
    assert result.status == 1
    assert len(pages) == 9


def test_the_same_again(images: Path) -> None:
    first, second = run(images, "kvm")[0], run(images, "kvm")[0]
    assert (first.instructions, first.cycles) == (second.instructions, second.cycles)


@pytest.mark.parametrize("dialect", ["kvm,-async_pf", "kvm,-async_pf_int"])
def test_switched_off_it_is_gp(images: Path, dialect: str) -> None:
    result, output, _ = run(images, dialect)
    assert "SUMMARY" not in output
    assert "13" in output or "#GP" in output, result.message
