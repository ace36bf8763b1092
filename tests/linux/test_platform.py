"""What Linux finds of the board, and whether it complains; ways to end and to start again."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.linux.guests import PROMPT, QUICK, Boot, Console
from vmm.observe.screen import capture

COMPLAINTS = re.compile(r"^<[0-4]>\[.*$", re.MULTILINE)
OF_THE_BOARD = re.compile(
    r"acpi|pci|pnp|apic|irq|timer|tsc|clock|rtc|i8042|mtrr|pat|numa|srat|smpboot|serial|nmi",
    re.IGNORECASE,
)
QUIET = f"{QUICK} quiet"


def test_linux_takes_the_board_without_a_complaint(cloud: Boot, tmp_path: Path) -> None:
    """Everything at once: processors, nodes, disks by PCI and by ACPI."""
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    text, result = cloud.say(
        "dmesg -r; nproc; grep . /sys/devices/system/node/node*/cpulist",
        "grep . /sys/bus/pci/devices/*/class; cat /proc/interrupts",
        "cd /sys/firmware/acpi/tables; echo *",
        cmdline=QUIET, cpus=4, numa=2,
        disks=[f"{image},readonly", f"{image},transport=mmio,readonly"],
    )  # fmt: skip
    assert result.reason == "poweroff"
    found = [line for line in COMPLAINTS.findall(text) if OF_THE_BOARD.search(line)]
    assert [line for line in found if "AUX port disabled" not in line] == [], "there is no mouse"
    for expected in (
        "x2apic enabled",
        "TSC deadline timer available",
        "ACPI: 1 ACPI AML tables successfully acquired and loaded",
        "ACPI: Using IOAPIC for interrupt routing",
        "SRAT: PXM 1 -> APIC 0x03 -> Node 1",
        "rtc_cmos 00:02: setting system clock to 2026-01-01T00:00:0",
        "16550A",
        "node1/cpulist:2-3",
        "0000:00:00.0/class:0x060000",
        "0000:00:01.0/class:0x010000",
    ):
        assert expected in text, expected
    assert re.search(r"^\s*9:.*IO-APIC\s+9-fasteoi\s+acpi", text, re.MULTILINE)
    assert "APIC DSDT FACP FACS MCFG SLIT SRAT" in text


@pytest.mark.slow
def test_processors_go_and_come_back(cloud: Boot) -> None:
    online = "/sys/devices/system/cpu/cpu{}/online"
    text, result = cloud.say(
        *(f"echo {state} > {online.format(cpu)}; echo now $(nproc)"
          for state in (0, 1) for cpu in (1, 2)),
        cmdline=QUIET, cpus=4,
    )  # fmt: skip
    assert re.findall(r"^now (\d)", text, re.MULTILINE) == ["3", "2", "3", "4"]
    assert result.reason == "poweroff"


ON_EACH = """\
for n in $(seq 0 15); do
    taskset $(printf %x $((1 << n))) sh -c \
        'seq 1 3000 | sha256sum; set -- $(cat /proc/self/stat); shift 38; echo ran on $1.' &
done; wait; nproc"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "ways",
    [{}, {"wakeup": "mailbox"}, {"timing": "cycle"}, {"pcpus": 3}],
    ids=["init-sipi", "mailbox", "cycle", "three-physical"],
)
def test_sixteen_processors_work_the_same_twice(cloud: Boot, ways: dict[str, Any]) -> None:
    seen = []
    limits = {"max_instructions": None, "max_cycles": 60_000_000_000}
    digest = hashlib.sha256("".join(f"{n}\n" for n in range(1, 3001)).encode()).hexdigest()
    for _ in range(2):
        console = Console([(PROMPT, f"{ON_EACH}\n".encode()), (PROMPT, b"poweroff\n")])
        with cloud.vm(console, cmdline=QUICK, cpus=16, **ways, **limits) as vm:
            result = vm.run()
            seen.append((console.text, result.instructions, result.exits, vm.digest()))
        assert result.reason == "poweroff"
    text, *_ = seen[0]
    assert "smp: Brought up 1 node, 16 CPUs" in text
    assert sorted(map(int, re.findall(r"^ran on (\d+)\.", text, re.MULTILINE))) == [*range(16)]
    assert text.count(digest) == 16
    assert "\n16\r" in text
    assert seen[0] == seen[1]


@pytest.mark.slow
def test_processors_are_woken_through_the_mailbox(cloud: Boot) -> None:
    """With the structure in MADT, Linux sends no INIT and no SIPI."""
    text, result = cloud.say("echo now $(nproc)", cmdline=QUIET, cpus=4, wakeup="mailbox")
    assert "now 4" in text
    assert result.reason == "poweroff"


def test_a_reboot_starts_linux_again(cloud: Boot) -> None:
    console = Console([(PROMPT, b"reboot -f\n"), (PROMPT, b"poweroff -f\n")])
    with cloud.vm(console, cmdline=QUICK) as vm:
        result = vm.run()
    assert console.text.count("Linux version") == 2
    assert (result.reason, result.status) == ("poweroff", 0)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["acpi", "kbd", "pci"])
def test_each_way_to_reset(cloud: Boot, how: str) -> None:
    """Linux, kernel-parameters.txt: reboot=; without a reboot the run ends with the reason."""
    console = Console([(PROMPT, b"reboot -f\n")])
    with cloud.vm(console, cmdline=f"{QUIET} reboot={how}", reboot=False) as vm:
        assert vm.run().reason == "reset"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        pytest.param("nox2apic lapic=notscdeadline", id="xapic"),
        pytest.param("noapic", id="pic"),
        pytest.param("pci=nommconf", id="ports"),
        pytest.param("acpi=off", id="without-acpi"),
    ],
)
def test_linux_does_with_less(cloud: Boot, words: str) -> None:
    """Without x2APIC and deadlines, by the PIC, by 0xcf8, and without any ACPI table."""
    console = Console([(PROMPT, b"sleep 0.2; cat /proc/interrupts; reboot -f\n")])
    given: dict[str, Any] = {"cmdline": f"{QUIET} {words}", "dialects": ["none"], "reboot": False}
    with cloud.vm(console, **given) as vm:
        assert vm.run().reason == "reset"
    counted = re.findall(r"^\s*\w+:\s+(\d+).*(?:timer|LOC|Local timer)", console.text, re.MULTILINE)
    assert max(map(int, counted)) > 10, console.text[-1500:]


@pytest.mark.slow
def test_the_console_on_the_screen_and_the_keyboard(cloud: Boot) -> None:
    """No serial console: what is typed comes by scan codes, what is said stands in text memory."""
    steps = [b'echo "Aa~|$((6 * 7))"\n', b"poweroff -f\n"]

    def look() -> bytes:
        lines = capture(vm).text().splitlines()
        ready = lines and lines[-1].rstrip() == PROMPT.decode().rstrip()
        return steps.pop(0) if ready and steps else b""

    console = Console([])
    console.poll = look  # type: ignore[method-assign]
    with cloud.vm(console, cmdline="cryptomgr.notests console=tty0", screen=True) as vm:
        result = vm.run()
        assert "Aa~|42" in capture(vm).text()
    assert result.reason == "poweroff"
