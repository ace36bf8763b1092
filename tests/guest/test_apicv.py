"""`--apicv`: the processor does for the local APIC what handlers did; the guest sees no difference.

KVM's PV EOI and steal time are left out: the one is not offered with --apicv, the other counts
cycles, and a register write is told before its instruction without --apicv, behind it with it.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.guest.test_guest_kernels import RING1_ROWS, name_of
from vmm import VM, Result

pytestmark = pytest.mark.held_by("ept", "shadow", why="APICv is VT-x's")

MOST_INSTRUCTIONS = 1_500_000
MOST_WILD_INSTRUCTIONS = 200_000


def run(row: dict[str, Any], images: Path, **options: Any) -> tuple[Result, bytes, str]:
    wild = row["status"] == "any"
    serial = bytearray()
    with VM(
        images / row["image"],
        dialects=["kvm", "-pv_eoi", "-steal_time"],
        memory=row["memory"],
        cpus=row.get("cpus", 1),
        cmdline=row.get("ring1", {}).get("cmdline", row["cmdline"]),
        serial_output=serial.extend,
        max_instructions=MOST_WILD_INSTRUCTIONS if wild else MOST_INSTRUCTIONS,
        reboot=False,
        **options,
    ) as vm:
        vm.pcpu.check_always()
        result = vm.run()
        return result, bytes(serial), result.digest()


@pytest.mark.parametrize("row", RING1_ROWS, ids=name_of)
def test_the_guest_sees_no_difference(row: dict[str, Any], images: Path) -> None:
    plain, said, digest = run(row, images)
    virtual, said_too, digest_too = run(row, images, apicv=True)
    assert said_too == said
    assert (virtual.status, virtual.message) == (plain.status, plain.message)
    assert (virtual.instructions, virtual.cycles) == (plain.instructions, plain.cycles)
    assert digest_too == digest


def test_with_shadow_tables_too(images: Path) -> None:
    row = next(row for row in RING1_ROWS if row["image"] == "smp.elf")
    plain, said, digest = run(row, images, mmu="ept")
    shadow, said_too, digest_too = run(row, images, apicv=True, mmu="shadow")
    assert (said_too, digest_too) == (said, digest)
    assert shadow.exits["EXCEPTION_NMI"] > plain.exits.get("EXCEPTION_NMI", 0)


@pytest.mark.held_by("ept", why="counts EPT violations")
def test_interrupts_and_their_ends_do_not_exit(images: Path) -> None:
    row = next(row for row in RING1_ROWS if row["image"] == "exits.elf")
    plain = run(row, images)[0].exits
    virtual = run(row, images, apicv=True)[0].exits
    kept = virtual["EPT_VIOLATION"] + virtual["APIC_ACCESS"] + virtual["APIC_WRITE"]
    assert plain["EPT_VIOLATION"] > kept
