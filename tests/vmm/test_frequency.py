"""The one clock at other frequencies: cores slow down, what counts time does not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodel.timing.clock import Clock
from tests.images import EXIT, OFF, elf64
from vmm import VM
from vmm.config import Config
from vmm.errors import UsageError
from vmm.frequency import frequency_plan

HZ = st.integers(1_000_000, 10**10)


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("2.5G", ((0, 2_500_000_000),)),
        ("1200000000", ((0, 1_200_000_000),)),
        (
            "2.4G,800M@10ms,2G@1s",
            ((0, 2_400_000_000), (10_000_000, 800_000_000), (10**9, 2 * 10**9)),
        ),
        ("1GHz@5us", ((5000, 10**9),)),
    ],
)
def test_plans(text: str, plan: tuple[tuple[int, int], ...]) -> None:
    assert frequency_plan(text) == plan
    assert Config.of(freq=text).freq == plan


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-1G", "is not a frequency"), ("0", "out of range"), ("fast", "is not a frequency"),
        ("1G,2G", "says no time"), ("1G@2s,2G@1s", "back in time"), ("200G", "out of range"),
        ("1G@5", "is not a frequency"), ("", "is not a frequency"),
    ],
)  # fmt: skip
def test_nonsense_is_one_line(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as refused:
        Config.of(freq=text)
    assert "\n" not in str(refused.value)
    assert "--freq" in str(refused.value)


@given(HZ, HZ, st.integers(0, 10**12), st.integers(0, 10**12), HZ)
def test_time_goes_on_over_a_change(one: int, two: int, before: int, after: int, hz: int) -> None:
    clock = Clock(one, tsc_hz=hz)
    clock.now = before
    ns, tsc, ticks = clock.ns(), clock.tsc(), clock.ticks(hz)
    clock.set_frequency(two)
    assert (clock.ns(), clock.tsc()) == (ns, tsc)
    assert 0 <= ticks - clock.ticks(hz) <= hz // 10**9 + 1, "a nanosecond is as fine as it gets"
    clock.now += after
    assert clock.ns() == ns + after * 10**9 // two
    assert clock.tsc() == tsc + after * hz // two
    tick = clock.ticks(hz) + 1
    clock.now = clock.cycle_of_tick(hz, tick)
    assert clock.ticks(hz) == tick or hz > two
    clock.now -= 1
    assert clock.ticks(hz) < tick
    clock.now = clock.cycle_of_tsc(tsc + 1000)
    assert clock.tsc() >= tsc + 1000
    clock.now -= 1
    assert clock.tsc() < tsc + 1000


@given(HZ, st.integers(0, 10**12))
def test_without_a_change_nothing_is_rounded(hz: int, now: int) -> None:
    clock = Clock(now=now)
    assert clock.ticks(hz) == now * hz // clock.frequency
    assert clock.tsc() == now
    assert clock.cycle_of_tick(hz, now) == -(-now * clock.frequency // hz)


TIMED = "rdtsc; mov esi, eax; mov ecx, 1000000; spin: loop spin; rdtsc; sub eax, esi; mov ebx, eax;"


def spun(**options: Any) -> int:
    """TSC ticks of a million turns of a loop."""
    with VM(elf64(TIMED + OFF), memory="4M", **options) as vm:
        vm.run()
        return int(vm.regs.rbx)


def test_an_invariant_tsc_shows_that_the_core_is_slow() -> None:
    full = spun()
    assert spun(freq="1.25G") in range(2 * full - 2, 2 * full + 3)
    assert spun(freq="2.5G") == full


def test_another_tsc_counts_cycles() -> None:
    assert spun(cpu_model="core-2") == spun(cpu_model="core-2", freq="1.33G")


def test_a_change_in_mid_run() -> None:
    """After 0.1 ms (250,000 cycles of a million) the rest takes twice as long."""
    full = spun()
    slowed = spun(freq="2.5G,1.25G@100us")
    assert slowed == pytest.approx(2 * full - 250_000, abs=50)


PIT = """
    mov al, 0xb0; out 0x43, al; mov al, 0x9b; out 0x42, al; mov al, 0x2e; out 0x42, al
    mov al, 1; out 0x61, al; rdtsc; mov esi, eax
    again: in al, 0x61; test al, 0x20; jz again; rdtsc; sub eax, esi; mov ebx, eax
"""


@pytest.mark.parametrize("freq", ["2.5G", "1G", "2.5G,700M@2ms", "500M,5G@3ms"])
def test_ten_milliseconds_are_ten_milliseconds(freq: str) -> None:
    """The PIT against an invariant TSC, on which Linux calibrates."""
    with VM(elf64(PIT + OFF), memory="4M", freq=freq) as vm:
        vm.run()
        assert vm.regs.rbx == pytest.approx(11_931 / 1_193_182 * 2.5e9, abs=6000)


DEADLINE = """
    mov edi, 0x300000 + 0x30 * 16; lea rax, [rip + tick]; mov word ptr [rdi], ax
    mov word ptr [rdi + 2], cs; mov word ptr [rdi + 4], 0x8e00; shr rax, 16
    mov dword ptr [rdi + 6], eax; mov dword ptr [rdi + 10], 0
    mov edi, 0x301000; mov word ptr [rdi], 4095; mov dword ptr [rdi + 2], 0x300000
    mov dword ptr [rdi + 6], 0; lidt [rdi]; mov al, 0xff; out 0x21, al
    mov ebx, 0xfee00000; mov dword ptr [rbx + 0xf0], 0x1ff; mov dword ptr [rbx + 0x320], 0x40030
    rdtsc; shl rdx, 32; or rax, rdx; add rax, 5000000; mov r14, rax
    mov rdx, rax; shr rdx, 32; mov ecx, 0x6e0; wrmsr; sti; hlt; cli; jmp over
    tick: rdtsc; shl rdx, 32; or rax, rdx; sub rax, r14; mov r15, rax; iretq
    over:
"""


@pytest.mark.parametrize("freq", ["2.5G", "1G", "2.5G,700M@1ms", "3.1G,2.7G@700us"])
def test_the_tsc_deadline_is_met(freq: str) -> None:
    """An idle processor sleeps until the event; that is 2 ms away whatever the core does."""
    with VM(elf64(DEADLINE + OFF), memory="4M", freq=freq) as vm:
        vm.run()
        assert 0 <= vm.regs[15] < 50
        assert vm.clock.ns() == pytest.approx(2_000_000, abs=20_000)
        assert vm.ledger.share("idle") > 0.9


def test_python_changes_it_too() -> None:
    with VM(elf64("hlt;" + OFF), memory="4M") as vm:
        vm.governor.set(1_000_000_000)
        assert vm.clock.frequency == 1_000_000_000
        with pytest.raises(ValueError, match="must be positive"):
            vm.governor.set(-1)


def test_a_snapshot_knows_the_frequency() -> None:
    with VM(elf64(TIMED + EXIT), memory="4M", freq="2.5G,1.25G@100us") as vm:
        begin = vm.snapshot()
        vm.run_until(600_000)
        middle = vm.snapshot()
        first = vm.run(), vm.regs.rbx
        vm.restore(middle)
        assert vm.clock.frequency == 1_250_000_000
        second = vm.run(), vm.regs.rbx
        vm.restore(begin)
        assert vm.clock.frequency == 2_500_000_000
        third = vm.run(), vm.regs.rbx
        assert first[0].cycles == second[0].cycles == third[0].cycles
        assert first[1] == second[1] == third[1]
