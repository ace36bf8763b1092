"""Unmodified Debian kernels boot to a shell that computes what the host computes."""

import hashlib
import re
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.linux.guests import PROMPT, Boot, Console
from vmm.boot.linux.compression import format_of, unpack
from vmm.boot.linux.header import parse_header


def answers_a_nonce(boot: Boot, **options: Any) -> str:
    """Boot, ask for the hash of something that nobody could know before; return the output."""
    nonce = secrets.token_hex(32)
    text, result = boot.say(f"echo {nonce} | sha256sum", "uname -r; cat /proc/cmdline", **options)
    assert hashlib.sha256(f"{nonce}\n".encode()).hexdigest() in text
    assert boot.kernel.release in text.rpartition(nonce)[2]
    assert (result.status, result.reason) == (0, "poweroff")
    for word in ("BUG:", "WARNING: CPU", "Oops", "Call Trace", "segfault"):
        assert word not in text
    return text


def to_the_prompt(boot: Boot, **options: Any) -> tuple[Any, ...]:
    """Boot to the first prompt; return all that must be the same each time."""
    console = Console([])
    with boot.vm(console, **options) as vm:
        console.steps.append((PROMPT, lambda: vm.interrupt("interrupted")))
        result = vm.run()
        digest = vm.digest()
    assert not console.steps, console.text[-2000:]
    return result.instructions, result.cycles, result.exits, digest, console.text


def test_the_cloud_kernel_answers_a_nonce(cloud: Boot) -> None:
    text = answers_a_nonce(cloud)
    assert "Hypervisor detected: KVM" in text


def test_a_boot_is_the_same_twice(cloud: Boot) -> None:
    assert to_the_prompt(cloud) == to_the_prompt(cloud)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"cpus": 4}, {"timing": "cycle"}, {"timing": "cycle", "cpus": 4}]
)
def test_it_is_the_same_twice_with_every_cycle_and_processor(
    cloud: Boot, options: dict[str, Any]
) -> None:
    assert to_the_prompt(cloud, **options) == to_the_prompt(cloud, **options)


def test_apic_virtualization_spares_exits_and_nothing_else(cloud: Boot) -> None:
    dialects = ["kvm", "-pv_eoi"]  # with it the instructions are others: ends without a register
    *plain, text = to_the_prompt(cloud, dialects=dialects)
    *virtual, same_text = to_the_prompt(cloud, dialects=dialects, apicv=True)
    exits, fewer = plain.pop(2), virtual.pop(2)
    assert (virtual, same_text) == (plain, text)
    assert exits["INTERRUPT_WINDOW"] > 10 > fewer.get("INTERRUPT_WINDOW", 0)
    assert exits["MSR_WRITE"] > fewer["MSR_WRITE"] * 1.5


def outcome(boot: Boot, **options: Any) -> tuple[Any, ...]:
    """What the guest sees of a boot: all but the exits."""
    instructions, cycles, _, digest, text = to_the_prompt(boot, **options)
    return instructions, cycles, digest, text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cpus", "way"),
    [
        (1, {"mmu": "shadow"}),
        (2, {"mmu": "shadow"}),
        (4, {"mmu": "shadow"}),
        (1, {"technique": "trap"}),
    ],
    ids=["shadow-1", "shadow-2", "shadow-4", "trap-1"],
)
def test_the_same_boot_however_it_is_held(cloud: Boot, way: dict[str, str], cpus: int) -> None:
    assert outcome(cloud, cpus=cpus, **way) == outcome(cloud, cpus=cpus)


@pytest.mark.slow
def test_several_processors_boot_under_the_trap_technique(cloud: Boot) -> None:
    """Their turns end elsewhere: PAUSE loops are counted from the last entry, and more come."""
    *_, text = outcome(cloud, cpus=4, technique="trap")
    assert re.search(r"Brought up 1 node, 4 CPUs", text), text[-2000:]


def text_address(boot: Boot, **options: Any) -> int:
    """Boot and ask where the kernel's code begins."""
    text, _ = boot.say("grep -w _text /proc/kallsyms", **options)
    found = re.search(r"^([0-9a-f]{16}) T _text\r?$", text, re.MULTILINE)
    assert found, text[-2000:]
    return int(found[1], 16)


LINKED = 0xFFFF_FFFF_8100_0000


@pytest.mark.slow
def test_kaslr_on_the_host(cloud: Boot) -> None:
    first = text_address(cloud, kaslr=7)
    assert first != LINKED
    assert first % (2 << 20) == 0
    assert text_address(cloud, kaslr=8) not in (first, LINKED)


@pytest.mark.slow
def test_the_kernels_own_decompressor_and_its_kaslr(cloud: Boot) -> None:
    options = {"kernel_entry": "decompressor"}
    assert text_address(cloud, **options) != LINKED
    assert text_address(cloud, cmdline="console=ttyS0 nokaslr", **options) == LINKED


@pytest.mark.slow
def test_the_generic_kernel_answers_a_nonce(generic: Boot) -> None:
    answers_a_nonce(generic)


def test_the_kernel_inside_starts_by_its_pvh_note_too(cloud: Boot, tmp_path: Path) -> None:
    """As `ring1 run vmlinux`: taken out of the bzImage as scripts/extract-vmlinux does."""
    data = cloud.kernel.image.read_bytes()
    header = parse_header(data)
    at = header.code_at + header.payload_offset
    payload = data[at : at + header.payload_length]
    packing = format_of(payload)
    assert packing
    vmlinux = tmp_path / "vmlinux"
    vmlinux.write_bytes(unpack(payload, packing))
    answers_a_nonce(replace(cloud, kernel=replace(cloud.kernel, image=vmlinux)))
