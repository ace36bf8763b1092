"""Stops cut translated blocks anywhere; not a cycle, an event or a byte may move for that."""

import random
from pathlib import Path
from typing import Any

import pytest

from tests.images import EXIT, elf64
from vmm import VM

END = 30_000_000
KERNELS = [
    "hello", "timer", "smc", "usermode", "delivery", "exceptions", "paging", "legacy_paging",
    "modes", "smp", "kvm", "mmio", "tasks",
]  # fmt: skip

# Long blocks, REPs in all states, faults in mid-block, stores into the page that runs, calls.
MIXED = (
    """
    mov rsp, 0x300000
    mov rdi, 0x200000; lea rax, [rip + again]; mov [rdi + 0xe0], ax; mov word ptr [rdi + 0xe2], cs
    mov dword ptr [rdi + 0xe4], 0x8e00; shr rax, 16; mov [rdi + 0xe6], rax
    lidt [rip + table]
    mov r15d, 40
round:
    mov ecx, 300; lea rsi, [rip + round]; mov rdi, 0x210000; rep movsb
    xor eax, eax; mov ecx, 77; mov rdi, 0x220000; rep stosq
    mov ecx, 1; rep stosd; xor ecx, ecx; rep stosb
    mov ecx, 64; mov rdi, 0x220000; repe scasb
    mov r8, 0x230000
"""
    + "".join(f"imul rax, r8; mov [r8 + {8 * n}], rax; add rax, [r8 + {4 * n}];" for n in range(90))
    + """
    lea rbx, [rip + patched]; inc byte ptr [rbx + 1]; nop
patched:
    mov al, 0; add r14, rax
    call leaf; call leaf
    mov ecx, 50
inner:
    imul rax, rax, 77; dec ecx; jnz inner
    mov rcx, 0xffff800000000000; mov rbx, 5; add rbx, rcx; mov rdx, [rcx]; add rbx, rdx
    dec r15d; jnz round
    mov eax, r14d; and eax, 63
    """
    + EXIT
    + """
leaf:
    push rbp; mov rbp, rsp; pop rbp; ret
again:
    add rsp, 8; mov rcx, 0x200000; iretq
table:
    .short 0xfff; .quad 0x200000
"""
)


def outcome(vm: VM) -> tuple[Any, ...]:
    ledger = vm.ledger
    parts = [account.as_dict() for account in ledger.vcpus]
    return vm.digest(), vm.clock.now, vm.pcpu.instructions, ledger.as_dict(), parts


def whole(image: Any, timing: str, **options: Any) -> tuple[tuple[Any, ...], int]:
    with VM(image, timing=timing, **options) as vm:
        vm.run_until(END)
        return outcome(vm), vm.clock.now


def in_slices(image: Any, timing: str, seed: int, end: int, **options: Any) -> tuple[Any, ...]:
    chance = random.Random(seed)
    with VM(image, timing=timing, **options) as vm:
        while vm.clock.now < end and not vm.is_stopped():
            step = chance.choice((1, 2, 3, 7, 40, 1000, 30_000, 400_000))
            vm.run_until(
                min(END, vm.clock.now + chance.randint(1, step * max(1, end // 3_000_000)))
            )
        vm.run_until(END)
        return outcome(vm)


@pytest.mark.parametrize("timing", ["fast", "cycle"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels(images: Path, kernel: str, timing: str) -> None:
    options: dict[str, Any] = {"cpus": 2} if kernel in ("smp", "kvm_smp") else {}
    image = images / f"{kernel}.elf"
    expected, end = whole(image, timing, **options)
    assert in_slices(image, timing, 1, end, **options) == expected


@pytest.mark.parametrize("seed", range(12))
def test_mixed_code(seed: int) -> None:
    image = elf64(MIXED)
    expected, end = whole(image, "cycle", memory="8M")
    assert in_slices(image, "cycle", seed, end, memory="8M") == expected


def test_single_steps() -> None:
    """One instruction an entry, which cuts every block and every REP's neighbours."""
    image = elf64(MIXED.replace("r15d, 40", "r15d, 2"))
    expected, _ = whole(image, "cycle", memory="8M")
    with VM(image, timing="cycle", memory="8M") as vm:
        while not vm.is_stopped():
            vm.instruction_limit = vm.pcpu.instructions + vm.pcpu.deliveries + 1
            vm.scheduler.run(vm.next_look())
            vm.instruction_limit = None
            vm.next_look()
            vm.between_turns()
        assert outcome(vm) == expected
