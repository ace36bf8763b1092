"""How a run ends: statuses, reasons, messages, limits, resets."""

import threading
from typing import Any

import pytest

from tests.images import EXIT, OFF, START, elf64, real16
from vmm import VM, Result, UsageError

MANY = 20_000_000_000  # instructions: minutes
SPIN = "again: inc rbx; jmp again"
KEYBOARD_RESET = "mov al, 0xfe; out 0x64, al; cli; hlt"
CHIPSET_RESET = "mov dx, 0xcf9; mov al, 6; out dx, al; cli; hlt"


def run(text: str, **options: Any) -> Result:
    with VM(elf64(text), memory="4M", **options) as vm:
        return vm.run()


@pytest.mark.parametrize(("value", "status"), [(0, 1), (1, 3), (33, 67), (127, 255), (200, 145)])
def test_the_exit_port_gives_an_odd_status(value: int, status: int) -> None:
    result = run(f"mov eax, {value}; {EXIT}; ud2")
    assert (result.status, result.reason) == (status, "debug_exit")


def test_halting_for_good() -> None:
    result = run(OFF)
    assert (result.status, result.reason, result.message) == (0, "halted", "")
    assert result.instructions == 2  # CLI, and HLT, which software completed


@pytest.mark.parametrize("waits", [True, False])
def test_halting_for_good_beside_a_running_timer(waits: bool) -> None:
    """With interrupts off, neither a tick nor a key wakes anybody."""
    text = "mov al, 0x34; out 0x43, al; mov al, 0xff; out 0x40, al; out 0x40, al; cli; hlt"
    with VM(
        elf64(text),
        memory="4M",
        wait_idle=(lambda _seconds, _descriptors: False) if waits else None,
        max_cycles=10**8,
    ) as vm:
        result = vm.run()
    assert (result.status, result.reason) == (0, "halted")


def test_halted_with_interrupts_on_waits_for_the_timer() -> None:
    """INT 8 of the PIT, in real mode: the handler ends the run."""
    image = real16("""
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7000
        mov word ptr [0x20], 0x500
        mov word ptr [0x22], 0
        mov byte ptr [0x500], 0xb0
        mov byte ptr [0x501], 0x09
        mov byte ptr [0x502], 0xe6
        mov byte ptr [0x503], 0xf4
        mov al, 0x30
        out 0x43, al
        mov al, 0xff
        out 0x40, al
        out 0x40, al
        sti
        hlt
        cli
        hlt
    """)
    with VM(image, memory="1M", max_cycles=10**9) as vm:
        result = vm.run()
    assert result.status == 9 << 1 | 1
    assert result.ledger["idle"] > 0.99 * 65535 / 1_193_182 * 2_500_000_000


def test_shutdown_port() -> None:
    text = "mov dx, 0x8900;" + "".join(f"mov al, {ord(c)}; out dx, al;" for c in "Shutdown")
    assert run(text + "ud2").reason == "poweroff"


def test_triple_fault_says_where(hold: str) -> None:
    result = run("nop; lidt [rip + none]; ud2; none: .quad 0; .quad 0")
    assert (result.status, result.reason) == (66, "triple_fault")
    assert "triple fault" in result.message
    assert f"RIP {START + 8:#x}" in result.message
    assert "long64" in result.message
    last = "EXCEPTION_NMI" if hold == "trap" else "TRIPLE_FAULT"  # software finds it there
    assert last in result.last_exits[-1]


def test_code_where_no_memory_is() -> None:
    result = run("mov eax, 0xc0000000; jmp rax")
    assert (result.status, result.reason) == (66, "unhandled")
    assert "0xc0000000" in result.message
    assert result.last_exits


def test_instruction_limit_is_exact() -> None:
    result = run(SPIN, max_instructions=12_345)
    assert (result.status, result.reason, result.instructions) == (68, "limit", 12_345)
    assert "--max-instructions 12345" in result.message
    assert "RIP 0x" in result.message


def test_cycle_limit_is_exact() -> None:
    result = run(SPIN, max_cycles=54_321)
    assert (result.status, result.reason, result.cycles) == (68, "limit", 54_321)
    assert "--max-cycles 54321" in result.message


def test_a_limit_ends_a_guest_that_only_exits() -> None:
    result = run("again: cpuid; jmp again", max_instructions=20_001)
    assert (result.status, result.instructions) == (68, 20_001)


def test_a_limit_ends_a_guest_that_only_faults() -> None:
    """A handler that returns to the faulting instruction retires nothing but its own IRET."""
    result = run(
        """
        lea rax, [rip + handler]
        mov rdi, 0x200060
        mov [rdi], ax
        mov word ptr [rdi + 2], cs
        mov dword ptr [rdi + 4], 0x8e00
        shr rax, 16
        mov [rdi + 6], rax
        lidt [rip + table]
        mov rsp, 0x300000
        ud2
    handler:
        iretq
    table:
        .short 0xfff
        .quad 0x200000
        """,
        max_instructions=5_000,
    )
    assert (result.status, result.reason) == (68, "limit")


def test_a_limit_ends_an_idle_guest() -> None:
    """An I/O APIC pin wired as an NMI may still come, so that CLI; HLT is not the end."""
    text = """
        mov edi, 0xfec00000
        mov dword ptr [rdi], 0x14
        mov dword ptr [rdi + 16], 0x400
        mov al, 0x30
        out 0x43, al
        cli
        hlt
    """
    result = run(text, max_cycles=10**9)
    assert result.status == 0  # the PIT waits for its count: no event
    start = "mov al, 0x34; out 0x43, al; mov al, 0xff; out 0x40, al; out 0x40, al; cli"
    result = run(text.replace("cli", start).replace("0x14", "0x16"), max_cycles=10**9)
    assert (result.status, result.reason, result.cycles) == (68, "limit", 10**9)


@pytest.mark.parametrize("reason", ["interrupted", "timeout"])
@pytest.mark.parametrize(
    "text", [SPIN, "again: cpuid; jmp again", "again: pushfq; popfq; jmp again"]
)
def test_interrupted_from_a_thread(reason: str, text: str) -> None:
    with VM(elf64("mov rsp, 0x300000;" + text), memory="4M", max_instructions=MANY) as vm:
        timer = threading.Timer(0.1, vm.interrupt, [reason])
        timer.start()
        result = vm.run()
        timer.join()
    assert result.reason == reason
    assert result.status == {"interrupted": 130, "timeout": 68}[reason]
    assert result.instructions > 1000


def test_interrupted_before_the_start() -> None:
    with VM(elf64(SPIN), memory="4M") as vm:
        vm.interrupt()
        assert vm.run().status == 130


def test_interrupted_while_stepping() -> None:
    with VM(elf64("again: cpuid; jmp again"), memory="4M") as vm:
        for count, _ in enumerate(vm):
            if count == 10:
                vm.interrupt()
            assert count < 20
        assert vm.run().status == 130


@pytest.mark.parametrize("reset", [KEYBOARD_RESET, CHIPSET_RESET])
def test_no_reboot_ends_at_the_reset(reset: str) -> None:
    result = run(reset, reboot=False)
    assert (result.status, result.reason) == (0, "reset")


@pytest.mark.parametrize("reset", [KEYBOARD_RESET, CHIPSET_RESET])
def test_a_reset_starts_the_guest_again(reset: str) -> None:
    """Memory is as at power-on each time, so that only the host can count."""
    out = bytearray()
    text = f"inc byte ptr [0x200000]; mov al, [0x200000]; add al, 0x30; out 0xe9, al; {reset}"
    with VM(elf64(text), memory="4M", serial_output=out.extend, max_instructions=60) as vm:
        result = vm.run()
    assert result.reason == "limit"
    assert len(out) > 3
    assert set(out) == {ord("1")}
    assert result.instructions == 60  # the count goes on over resets


def test_a_reset_while_stepping() -> None:
    with VM(elf64(f"cpuid; {CHIPSET_RESET}"), memory="4M", max_instructions=30) as vm:
        names = [vmexit.name for vmexit in vm]
    assert names.count("CPUID") > 2


def test_real_mode_halts() -> None:
    with VM(real16("cli; hlt"), memory="1M") as vm:
        assert vm.run().reason == "halted"


def test_run_again_gives_the_same_result() -> None:
    with VM(elf64(f"mov eax, 5; {EXIT}"), memory="4M") as vm:
        first = vm.run()
        assert vm.run().status == first.status == 11


@pytest.mark.parametrize("options", [{"memory": "4Q"}, {"cpus": 0}, {"speed": 3}])
def test_bad_options_are_one_line(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        VM(elf64(OFF), **options)
    assert "\n" not in str(caught.value)


def test_the_same_run_twice() -> None:
    text = f"""
        mov rsp, 0x300000
        mov ecx, 1000
    again:
        mov [0x200000 + rcx * 8], rcx
        rdtsc
        add rbx, rax
        cpuid
        loop again
        {OFF}
    """.replace("cpuid", "push rcx; cpuid; pop rcx; mov rax, 0")
    text = text.replace("add rbx, rax", "add r8, rax")

    def once() -> tuple[object, ...]:
        with VM(elf64(text), memory="4M") as vm:
            result = vm.run()
            exits = [repr(vmexit) for vmexit in vm.exits]
            return result.instructions, result.cycles, result.exits, exits, result.digest()

    assert once() == once()


def test_the_ledger_adds_up() -> None:
    result = run(f"mov ecx, 100; again: loop again; {OFF}")
    assert sum(result.ledger.values()) == result.cycles


def test_a_closed_machine_has_no_digest() -> None:
    result = run(OFF)
    with pytest.raises(UsageError, match="closed"):
        result.digest()
