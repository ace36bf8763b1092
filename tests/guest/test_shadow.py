"""The guest kernels with shadow tables: the guest sees what it sees under EPT, to the digest."""

from pathlib import Path
from typing import Any

import pytest

from tests.guest.test_guest_kernels import RING1_ROWS, name_of
from vmm import VM, Result

MOST_INSTRUCTIONS = 1_500_000
MOST_WILD_INSTRUCTIONS = 200_000


def run(row: dict[str, Any], images: Path, mmu: str) -> tuple[Result, bytes, str]:
    wild = row["status"] == "any"
    serial = bytearray()
    with VM(
        images / row["image"],
        mmu=mmu,
        memory=row["memory"],
        cpus=row.get("cpus", 1),
        cmdline=row.get("ring1", {}).get("cmdline", row["cmdline"]),
        serial_output=serial.extend,
        max_instructions=MOST_WILD_INSTRUCTIONS if wild else MOST_INSTRUCTIONS,
        reboot=False,
    ) as vm:
        vm.pcpu.check_always()
        result = vm.run()
        return result, bytes(serial), result.digest()


@pytest.mark.parametrize("row", RING1_ROWS, ids=name_of)
def test_the_guest_sees_no_difference(row: dict[str, Any], images: Path) -> None:
    ept, said, digest = run(row, images, "ept")
    shadow, said_too, digest_too = run(row, images, "shadow")
    assert said_too == said
    assert (shadow.status, shadow.message) == (ept.status, ept.message)
    assert (shadow.instructions, shadow.cycles) == (ept.instructions, ept.cycles)
    assert digest_too == digest


def test_exits_are_what_they_are(images: Path) -> None:
    row = next(row for row in RING1_ROWS if row["image"] == "paging.elf")
    exits = run(row, images, "shadow")[0].exits
    assert exits["EXCEPTION_NMI"] > 100
    assert exits["INVLPG"] > 100
    assert exits["CR_ACCESS"] > 100
    assert "EPT_VIOLATION" not in exits
    ept = run(row, images, "ept")[0].exits
    assert "EXCEPTION_NMI" not in ept
    assert "INVLPG" not in ept
