"""What Linux makes of KVM's dialect: detection, clock, several processors, memory swapped out."""

import hashlib
import re
from typing import Any

import pytest

from hwmodel.vmx.exit import Exit
from tests.linux.guests import PROMPT, Boot, Console
from vmm.pv.kvm.features import BUILT

TOLD = "dmesg; cat /sys/devices/system/clocksource/clocksource0/current_clocksource"
EOI = 0x80B  # x2APIC


def test_linux_uses_all_of_it(cloud: Boot) -> None:
    """Lines of arch/x86/kernel/{kvm,kvmclock}.c; steal is column 8 of /proc/stat."""
    burn = "for i in 1 2 3 4; do sha256sum /bin/busybox & done; wait; head -1 /proc/stat"
    text, result = cloud.say(TOLD, burn, cpus=4)
    assert result.reason == "poweroff"
    for line in (
        "Hypervisor detected: KVM",
        "kvm-clock: Using msrs 4b564d01 and 4b564d00",
        "Booting paravirtualized kernel on KVM",
        "kvm-guest: KVM setup pv remote TLB flush",
        "kvm-guest: setup PV sched yield",
        "kvm-guest: PV spinlocks enabled",
        "kvm-guest: setup PV IPIs",
        "clocksource: Switched to clocksource kvm-clock",
        "\nkvm-clock\r\n",
    ):
        assert line in text, line
    counts = re.findall(r"^cpu  ([\d ]+)", text, re.MULTILINE)
    assert int(counts[-1].split()[7]) > 0, "four tasks on one physical processor wait"
    assert "WARNING" not in text
    assert "stall" not in text.replace("Total stalls", "")


def test_without_it_linux_finds_no_hypervisor(cloud: Boot) -> None:
    text, result = cloud.say(TOLD, dialects=["none"])
    assert result.reason == "poweroff"
    assert "Hypervisor detected" not in text
    assert "kvm-clock" not in text
    assert "clocksource: Switched to clocksource tsc" in text


@pytest.mark.slow
def test_features_go_one_by_one(cloud: Boot) -> None:
    off = "kvm,-steal_time,-pv_send_ipi,-pv_sched_yield,-clocksource2,-pv_unhalt"
    text, result = cloud.say(TOLD, cpus=2, dialects=off)
    assert result.reason == "poweroff"
    assert "Hypervisor detected: KVM" in text
    assert "kvm-clock: Using msrs 12 and 11" in text
    for gone in ("setup pv remote TLB flush", "setup PV IPIs", "setup PV sched yield"):
        assert gone not in text, gone
    assert "PV spinlocks disabled, no host support" in text


GONE = {
    "steal_time": ("setup pv remote TLB flush", "setup PV sched yield"),
    "pv_tlb_flush": ("setup pv remote TLB flush",),
    "pv_sched_yield": ("setup PV sched yield",),
    "pv_send_ipi": ("setup PV IPIs",),
    "pv_unhalt": ("PV spinlocks enabled",),
    "clocksource2": ("msrs 4b564d01 and 4b564d00",),
}
"""What Linux (arch/x86/kernel/kvm.c, kvmclock.c) no longer says without a feature."""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(feature.name.lower() for feature in BUILT))
def test_linux_does_without_each_feature(cloud: Boot, name: str) -> None:
    text, result = cloud.say(
        TOLD, "for n in 1 2 3 4; do seq 1 200 | sha256sum & done; wait",
        cpus=4, dialects=f"kvm,-{name}",
    )  # fmt: skip
    assert result.reason == "poweroff"
    assert (
        text.count(hashlib.sha256("".join(f"{n}\n" for n in range(1, 201)).encode()).hexdigest())
        == 4
    )
    assert "\nkvm-clock\r\n" in text
    assert [line for line in GONE.get(name, ()) if line in text] == []
    for word in ("WARNING", "unchecked MSR", "Call Trace", "BUG:", "Oops"):
        assert word not in text, word


def ends_of_interrupts(cloud: Boot, dialects: str) -> int:
    """How often a boot writes EOI."""
    console, seen = Console([(PROMPT, b"poweroff\n")]), []
    with cloud.vm(console, dialects=dialects) as vm:

        @vm.on_exit("MSR_WRITE")
        def count(_vmexit: Exit) -> None:
            if vm.regs.rcx & 0xFFFF_FFFF == EOI:
                seen.append(1)

        assert vm.run().reason == "poweroff"
    return len(seen)


@pytest.mark.slow
def test_the_end_of_an_interrupt_is_no_exit(cloud: Boot) -> None:
    with_exit, without = (ends_of_interrupts(cloud, d) for d in ("kvm,-pv_eoi", "kvm"))
    assert without * 5 < with_exit, (without, with_exit)


@pytest.mark.parametrize("cpus", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_linux_lives_with_memory_that_is_swapped_out(cloud: Boot, cpus: int) -> None:
    """A quarter of RAM is taken away again and again; tasks sleep until their pages are back."""
    work = b"for i in 1 2 3 4 5 6 7 8; do sha256sum /bin/busybox; done; grep HYP /proc/interrupts\n"
    steps: list[Any] = [(PROMPT, work), (PROMPT, b"poweroff\n")]
    console = Console(steps)
    with cloud.vm(console, cpus=cpus, memory="128M") as vm:
        while not vm.is_stopped() and len(steps) == 2:
            vm.scheduler.run(vm.clock.now + 50_000_000)
            vm.between_turns()
        while not vm.is_stopped() and len(steps) == 1:
            vm.pager.swap_out(0x200_0000, 0x200_0000)
            vm.scheduler.run(vm.clock.now + 50_000_000)
            vm.between_turns()
        result = vm.run()
    assert result.reason == "poweroff"
    sums = re.findall(r"^([0-9a-f]{64})  /bin/busybox", console.text, re.MULTILINE)
    assert len(sums) == 8
    assert len(set(sums)) == 1
    told = re.search(r"^HYP:((?:\s+\d+)+)", console.text.replace(" HYP", "HYP"), re.MULTILINE)
    assert told, console.text[-2000:]
    assert sum(map(int, told[1].split())) > 20, "nobody was told"
    assert "Oops" not in console.text


@pytest.mark.slow
def test_on_half_as_many_processors_steal_time_is_what_the_host_says(cloud: Boot) -> None:
    """Xen's credit scheduler; `ring1 lab locks` measures how much is spun for locks."""
    job = (
        "mkdir /d; s() { i=0; while [ $i -lt 20 ]; do : > /d/$1.$i; rm /d/$1.$i; "
        "i=$((i+1)); done; }; for p in 1 2 3 4; do s $p & done; wait; head -1 /proc/stat"
    )
    steal = []
    for dialects in ("kvm", "kvm,-pv_unhalt,-steal_time"):
        text, result = cloud.say(
            job, cpus=4, pcpus=2, sched="credit", dialects=dialects.split(","), timing="cycle",
            max_instructions=None, max_cycles=60_000_000_000,
        )  # fmt: skip
        assert result.reason == "poweroff"
        counts = re.findall(r"^cpu  ([\d ]+)", text, re.MULTILINE)
        steal.append(int(counts[-1].split()[7]))
    assert steal[0] > steal[1] == 0
