"""The guest kernels, held in every way: the guest sees no difference, to the digest."""

from pathlib import Path
from typing import Any

import pytest

from hwmodel.arch.exits import ExitReason
from tests.guest.test_guest_kernels import RING1_ROWS, name_of
from vmm import VM, Result

MOST_INSTRUCTIONS = 500_000_000
MOST_WILD_INSTRUCTIONS = 200_000
WAYS: dict[str, dict[str, Any]] = {
    "ept": {"mmu": "ept"},
    "shadow": {"mmu": "shadow"},
    "trap": {"technique": "trap"},
}


def run(row: dict[str, Any], images: Path, way: str) -> tuple[Result, tuple[Any, ...]]:
    """How it ended, and all that must be the same in every way."""
    wild = row["status"] == "any"
    serial = bytearray()
    with VM(
        images / row["image"],
        **WAYS[way],
        memory=row["memory"],
        cpus=row.get("cpus", 1),
        dialects=row.get("dialects"),
        cmdline=row.get("ring1", {}).get("cmdline", row["cmdline"]),
        serial_output=serial.extend,
        max_instructions=MOST_WILD_INSTRUCTIONS if wild else MOST_INSTRUCTIONS,
        reboot=False,
    ) as vm:
        vm.pcpu.check_always()
        result = vm.run()
        ended = result.status, result.message, result.instructions, result.cycles
        return result, (*ended, bytes(serial), result.digest())


@pytest.mark.parametrize("row", RING1_ROWS, ids=name_of)
def test_the_guest_sees_no_difference(row: dict[str, Any], images: Path) -> None:
    ept, shadow, trap = (run(row, images, way)[1] for way in WAYS)
    assert shadow == ept
    assert trap == ept


def exits(image: str, images: Path, way: str) -> dict[str, int]:
    row = next(row for row in RING1_ROWS if row["image"] == image)
    return run(row, images, way)[0].exits


def test_exits_under_shadow_paging_are_what_they_are(images: Path) -> None:
    shadow, ept = (exits("paging.elf", images, way) for way in ("shadow", "ept"))
    assert shadow["EXCEPTION_NMI"] > 100
    assert shadow["INVLPG"] > 100
    assert shadow["CR_ACCESS"] > 100
    assert "EPT_VIOLATION" not in shadow
    assert not {"EXCEPTION_NMI", "INVLPG"} & ept.keys()


def test_what_vtx_lets_the_guest_do_is_trapped_and_named(images: Path) -> None:
    """Popek and Goldberg's list: Robin and Irvine, "Analysis of the Intel Pentium's Ability"."""
    trap, vtx = (exits("visible.elf", images, way) for way in ("trap", "shadow"))
    named = {"CLI", "STI", "PUSHF", "POPF", "IRET", "LGDT", "LIDT", "LLDT", "LTR", "SWAPGS"}
    named |= {"SGDT", "SIDT", "SLDT", "STR", "SMSW", "SYSCALL", "INT", "MSR_WRITE"}
    assert named <= trap.keys()
    assert not (named - {"MSR_WRITE"}) & vtx.keys()
    assert trap["MSR_WRITE"] > vtx["MSR_WRITE"]  # the bases too, which VT-x lets pass


def test_the_hardware_saw_a_general_protection_fault(images: Path) -> None:
    seen: dict[str, tuple[str, int]] = {}
    with VM(images / "visible.elf", memory="64M", technique="trap") as vm:
        for vmexit in vm:
            seen[vmexit.name] = vmexit.hardware_name, vmexit.interruption_info
            assert vmexit.hardware_reason == ExitReason.EXCEPTION_NMI
        patched = vm.pcpu.counters()["patched"]
    general_protection = "EXCEPTION_NMI", 1 << 31 | 1 << 11 | 3 << 8 | 13
    for name in ("CLI", "POPF", "LGDT", "CR_ACCESS", "MSR_WRITE", "IO_INSTRUCTION", "SGDT"):
        assert seen[name] == general_protection
    assert seen["INT"] == ("EXCEPTION_NMI", 1 << 31 | 4 << 8 | 0x80) or seen["INT"][1] >> 8 & 7 == 4
    assert patched > 0
