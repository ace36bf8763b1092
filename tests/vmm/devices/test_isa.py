"""Old ports take time: a guest that polls the 8254 for 10 ms does so in thousands of polls."""

from tests.images import EXIT, elf64
from vmm import VM
from vmm.devices.isa import SLOW_PORTS

GATE_ON = "mov dx, 0x61; mov al, 1; out dx, al;"
ONE_SHOT = "mov al, 0xb0; out 0x43, al; mov al, 0x9b; out 0x42, al; mov al, 0x2e; out 0x42, al;"
POLL = "xor ebx, ebx; again: inc ebx; in al, 0x61; test al, 0x20; jz again;"  # 11,931 ticks: 10 ms
TIMED = "rdtsc; mov esi, eax;" + GATE_ON + ONE_SHOT + POLL + "rdtsc; sub eax, esi; mov ecx, eax;"


def test_polling_the_timer_for_ten_milliseconds() -> None:
    with VM(elf64(TIMED + EXIT), max_instructions=1_000_000) as vm:
        result = vm.run()
        assert result.reason == "debug_exit"
        assert 9_000 < vm.regs.rbx < 10_100, "a microsecond each"
        assert 25_000_000 <= vm.regs.rcx < 25_100_000
    assert result.ledger["device"] > 24_000_000
    assert sum(result.ledger.values()) == result.cycles


def test_guests_own_ports_are_free() -> None:
    assert not SLOW_PORTS & {0xE0, 0xE9, 0xF4, 0x3F8, 0x3FD, 0xCF8, 0xCFC, 0x510, 0xC000}
    with VM(elf64("mov dx, 0x3fd; in al, dx; in al, 0xe9;" + EXIT)) as vm:
        result = vm.run()
    assert result.ledger["device"] == 0


def test_the_count_goes_back_with_a_snapshot() -> None:
    with VM(elf64("in al, 0x61; hlt;" + EXIT)) as vm:
        before = vm.snapshot()
        vm.run()
        assert vm.board.isa.spent == vm.board.isa.access_cycles == 2500
        vm.restore(before)
        assert vm.board.isa.spent == 0
