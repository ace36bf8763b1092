"""Stepping through exits from Python: `for vmexit in vm`, `on_exit`, registers and memory."""

import pytest

from tests.images import EXIT, OFF, START, elf64, real16
from vmm import VM, UsageError

CPUIDS = f"mov eax, 0; cpuid; mov eax, 1; xor ecx, ecx; cpuid; mov r15, rbx; {OFF}"


@pytest.mark.held_by("ept", why="names the exits of VT-x with EPT")
def test_each_exit_is_seen_before_its_handler_runs() -> None:
    seen = []
    with VM(elf64(CPUIDS), memory="4M") as vm:
        for vmexit in vm:
            seen.append((vmexit.name, vm.regs.rax & 0xFFFF_FFFF, vm.regs.rip))
            assert vmexit.rip == vm.regs.rip
        result = vm.run()
    assert [name for name, _, _ in seen] == ["CPUID", "CPUID", "HLT"]
    assert [rax for name, rax, _ in seen if name == "CPUID"] == [0, 1]
    assert seen[0][2] == START + 5
    assert (result.status, result.reason) == (0, "halted")
    assert result.exits == {"CPUID": 2, "HLT": 1}


@pytest.mark.held_by("ept", why="names the exits of VT-x with EPT")
def test_the_handler_runs_on_resume() -> None:
    with VM(elf64(f"xor eax, eax; cpuid; {OFF}"), memory="4M") as vm:
        steps = iter(vm)
        assert next(steps).name == "CPUID"
        assert vm.regs.rbx == 0
        assert next(steps).name == "HLT"
        text = b"".join(vm.regs[n].to_bytes(4, "little") for n in (3, 2, 1))
    assert text == b"GenuineIntel"


def test_handled_keeps_the_handler_away() -> None:
    with VM(elf64(f"xor eax, eax; cpuid; {OFF}"), memory="4M") as vm:
        for vmexit in vm:
            if vmexit.name == "CPUID":
                vm.regs.rbx = 0x1234_5678_9ABC_DEF0
                vm.regs.rip += vmexit.instruction_length
                vmexit.handled = True
    assert vm.regs.rbx == 0x1234_5678_9ABC_DEF0


@pytest.mark.held_by("ept", why="names the exits of VT-x with EPT")
def test_stepping_and_running_are_the_same_run() -> None:
    image = elf64(f"mov ecx, 5; again: mov eax, 0x40; out 0x80, al; cpuid; mov ecx, 3; {OFF}")
    with VM(image, memory="4M") as vm:
        whole = vm.run()
        digest = whole.digest()
    with VM(image, memory="4M") as vm:
        stepped = [vmexit.name for vmexit in vm]
        end = vm.run()
        assert end.digest() == digest
    assert stepped == ["IO_INSTRUCTION", "CPUID", "HLT"]
    assert (end.instructions, end.cycles, end.exits) == (
        whole.instructions,
        whole.cycles,
        whole.exits,
    )


@pytest.mark.held_by("ept", why="names the exits of VT-x with EPT")
def test_leaving_the_loop_and_running_on() -> None:
    with VM(elf64(CPUIDS), memory="4M") as vm:
        for _ in vm:
            break
        assert vm.run().exits == {"CPUID": 2, "HLT": 1}
    assert vm.regs.r15 & 0xFF00 == 8 << 8  # CLFLUSH line of leaf 1: the handler ran


@pytest.mark.held_by("ept", why="names the exits of VT-x with EPT")
def test_exits_are_remembered_with_their_fields() -> None:
    with VM(elf64(CPUIDS), memory="4M") as vm:
        vm.run()
        first, second, last = vm.exits
    assert [first.name, second.name, last.name] == ["CPUID", "CPUID", "HLT"]
    assert (first.instructions, second.instructions) == (1, 4)
    assert first.rip == START + 5
    assert first.sequence == 1


def test_exits_seen_are_bounded() -> None:
    loop = f"mov r8d, 5000; again: mov al, 0; out 0x80, al; dec r8d; jnz again; {OFF}"
    with VM(elf64(loop), memory="4M") as vm:
        result = vm.run()
        assert result.exits["IO_INSTRUCTION"] == 5000
        assert 100 <= len(vm.exits) < 5000
        assert vm.exits[-1].name == "HLT"


def test_on_exit_with_a_condition() -> None:
    with VM(elf64(CPUIDS), memory="4M") as vm:
        leaves = []

        @vm.on_exit("CPUID", leaf=1)
        def note(vmexit: object) -> None:
            leaves.append(vm.regs.rax & 0xFFFF_FFFF)

        @vm.on_exit("HLT")
        def note_hlt(vmexit: object) -> None:
            leaves.append(-1)

        assert vm.run().status == 0
    assert leaves == [1, -1]


def test_on_exit_may_take_the_exit_over() -> None:
    with VM(elf64(f"mov eax, 0x12345; cpuid; mov r15, rax; {OFF}"), memory="4M") as vm:

        @vm.on_exit("CPUID", leaf=0x12345)
        def answer(vmexit: object) -> None:
            vm.regs.rax = 0x77
            vm.regs.rip += 2
            vmexit.handled = True  # type: ignore[attr-defined]

        vm.run()
    assert vm.regs.r15 == 0x77


def test_an_exception_of_the_users_reaches_the_user() -> None:
    with VM(elf64(CPUIDS), memory="4M") as vm:

        @vm.on_exit("HLT")
        def fail(vmexit: object) -> None:
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            vm.run()


def test_memory_is_readable_and_writable_at_an_exit() -> None:
    image = elf64(
        f"mov edi, 0x200000; mov dword ptr [rdi], 0x11223344; cpuid; mov r15, [rdi]; {OFF}"
    )
    with VM(image, memory="4M") as vm:
        for vmexit in vm:
            if vmexit.name == "CPUID":
                assert vm.memory[0x20_0000] == 0x44
                assert vm.memory[0x20_0000:0x20_0004] == b"\x44\x33\x22\x11"
                vm.memory[0x20_0000] = 0x99
                vm.memory[0x20_0001:0x20_0003] = b"\xaa\xbb"
        assert vm.regs.r15 == 0x11BB_AA99


def test_code_written_at_an_exit_is_what_runs() -> None:
    image = elf64(f"mov r8d, 2; again: cpuid; mov r15d, 1; dec r8d; jnz again; {OFF}")
    with VM(image, memory="4M") as vm:
        count = 0
        for vmexit in vm:
            if vmexit.name == "CPUID":
                count += 1
                vm.memory[vmexit.rip + 4] = count * 16  # the immediate behind 41 BF
        assert vm.regs.r15 == 32


def test_memory_that_is_none_is_refused() -> None:
    with VM(elf64(OFF), memory="4M") as vm:
        with pytest.raises(UsageError, match="0x400000"):
            vm.memory[0x40_0000]
        with pytest.raises(UsageError):
            vm.memory[0x3F_FFFF:0x40_0001]
        with pytest.raises(UsageError):
            vm.memory[-1] = 0
        assert vm.memory[0x3F_FFFF] == 0


def test_virtual_memory_follows_the_guests_tables() -> None:
    """The guest maps 8 MiB (linear) to 2 MiB; its own loader maps one to one."""
    image = elf64(f"""
        mov dword ptr [0x200010], 0xcafe
        mov rbx, cr3
        mov rbx, [rbx]
        and rbx, -4096
        mov rbx, [rbx]
        and rbx, -4096
        mov qword ptr [rbx + 8 * 4], 0x200083
        mov rax, cr3
        mov cr3, rax
        cpuid
        mov edi, 0x800018
        mov r15, [rdi]
        {OFF}
    """)
    with VM(image, memory="4M") as vm:
        for vmexit in vm:
            if vmexit.name == "CPUID":
                assert vm.virtual[0x80_0010:0x80_0014] == b"\xfe\xca\0\0"
                assert vm.virtual[0x80_0010] == 0xFE
                vm.virtual[0x80_0018] = 0x42
                with pytest.raises(UsageError, match="not mapped"):
                    vm.virtual[1 << 40]
        assert vm.memory[0x20_0018] == 0x42
        assert vm.regs.r15 == 0x42


@pytest.mark.held_by("ept", "shadow", why="trap asks for more than real mode's exits")
def test_real_mode_code_is_seen_too() -> None:
    with VM(real16("mov ax, 0x1234; mov es, ax; cpuid; cli; hlt"), memory="1M") as vm:
        names = [(vmexit.name, vm.current.mode()) for vmexit in vm]
    assert names == [("CPUID", "real"), ("HLT", "real")]


def test_serial_output_and_input() -> None:
    """Polls the line status for a byte, answers it plus one."""
    out = bytearray()
    waiting = [b"A"]
    text = f"""
    wait:
        mov ecx, 10000
    pause:
        dec ecx
        jnz pause
        mov dx, 0x3fd
        in al, dx
        test al, 1
        jz wait
        mov dx, 0x3f8
        in al, dx
        inc al
        out dx, al
        xor eax, eax
        {EXIT}
    """
    with VM(
        elf64(text),
        memory="4M",
        serial_output=out.extend,
        poll_input=lambda: waiting.pop() if waiting else b"",
        max_instructions=10_000_000,
    ) as vm:
        assert vm.run().status == 1
    assert bytes(out) == b"B"


def test_what_nobody_answers_is_noted() -> None:
    text = f"mov dx, 0x1230; in al, dx; mov bl, al; mov rax, [0xd0000000]; mov r15, rax; {OFF}"
    with VM(elf64(text), memory="4M") as vm:
        vm.run()
        assert vm.regs.rbx & 0xFF == 0xFF
        assert vm.regs.r15 == 2**64 - 1
        assert {number for _, number, _ in vm.unknown} >= {0x1230, 0xD000_0000}
