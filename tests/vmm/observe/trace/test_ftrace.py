"""The text of a trace, held against the formats of Linux's trace headers, written out by hand."""

from pathlib import Path

import pytest

from tests.images import OFF, elf64
from tests.vmm.observe.trace.traced import ONE_OF_EACH, record

REFUSED = f"""
    lea rax, [rip + table]; mov [rip + pointer + 2], rax
    lea rax, [rip + handler]; mov rdi, rax; lea rsi, [rip + table]; add rsi, 13 * 16
    mov [rsi], ax; mov ax, cs; mov [rsi + 2], ax; mov word ptr [rsi + 4], 0x8e00
    mov rax, rdi; shr rax, 16; mov [rsi + 6], ax; shr rax, 16; mov [rsi + 8], eax
    lidt [rip + pointer]; mov ecx, 0xdead; rdmsr
    handler: {OFF}
    pointer: .word 0x0fff; .quad 0
    .align 16
    table: .zero 4096
"""


def events(text: str) -> list[tuple[str, str]]:
    """(event, text) of each line."""
    found = []
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, rest = line.split(": ", 1)[1].partition(": ")
            found.append((name, rest))
    return found


@pytest.mark.held_by("ept", why="names the exits of VT-x with EPT")
def test_each_event(tmp_path: Path) -> None:
    record(ONE_OF_EACH, tmp_path / "t.txt")
    found = events((tmp_path / "t.txt").read_text())
    told = [(name, text) for name, text in found if name not in ("kvm_exit", "kvm_entry")]
    assert told == [
        ("kvm_pio", "pio_write at 0x80 size 1 count 1 val 0x12 "),
        ("kvm_pio", "pio_read at 0x2ff size 2 count 1 val 0xffff "),
        (
            "kvm_cpuid",
            "func 40000000 idx 0 rax 40000010 rbx 4b4d564b rcx 564b4d56 rdx 4d, cpuid entry found",
        ),
        ("kvm_msr", "msr_read 277 = 0x7040600070406"),
        ("kvm_msr", "msr_write 277 = 0x7040600070406"),
        (
            "kvm_page_fault",
            "vcpu 0 rip 0x100021 address 0x00000000fee00020 error_code 0x100000004",
        ),
        ("kvm_emulate_insn", "0:100021:8b 06 (prot64)"),
        ("kvm_mmio", "mmio read len 4 gpa 0xfee00020 val 0x0"),
        ("kvm_apic", "apic_read APIC_ID = 0x0"),
        (
            "kvm_page_fault",
            "vcpu 0 rip 0x100023 address 0x00000000fee00080 error_code 0x100000002",
        ),
        ("kvm_emulate_insn", "0:100023:c7 46 60 00 00 00 ff (prot64)"),
        ("kvm_mmio", "mmio write len 4 gpa 0xfee00080 val 0xff000000"),
        ("kvm_apic", "apic_write APIC_TASKPRI = 0xff000000"),
        ("kvm_emulate_insn", "0:10003a:f3 6e (prot64)"),
        ("kvm_pio", "pio_write at 0x80 size 1 count 3 val 0x90 (...)"),
        ("kvm_hypercall", "nr 0x9 a0 0x1 a1 0x2 a2 0x3 a3 0x4"),
        ("kvm_pio", "pio_read at 0x61 size 1 count 1 val 0x0 "),
    ]
    exits = [text for name, text in found if name == "kvm_exit"]
    assert exits[0] == (
        "vcpu 0 reason IO_INSTRUCTION rip 0x100002 info1 0x0000000000800040 "
        "info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000"
    )
    assert exits[-1].startswith("vcpu 0 reason HLT rip ")
    entries = [text for name, text in found if name == "kvm_entry"]
    assert entries[0] == "vcpu 0, rip 0x100004"
    assert len(entries) == len(exits) - 1  # the last was never entered again


@pytest.mark.held_by("ept", why="names the exits of VT-x with EPT")
def test_the_line_is_that_of_ftrace(tmp_path: Path) -> None:
    """Linux Documentation/trace/ftrace.rst: TASK-PID, CPU#, flags, TIMESTAMP in microseconds."""
    record(ONE_OF_EACH, tmp_path / "t.txt")
    text = (tmp_path / "t.txt").read_text()
    assert text.startswith("# tracer: nop\n#\n# entries-in-buffer/entries-written: 38/38   #P:1\n")
    first, second, *_ = [line for line in text.splitlines() if not line.startswith("#")]
    assert first.startswith("       CPU 0/KVM-1000    [000] d....     0.000000: kvm_exit: vcpu 0 ")
    assert second.startswith(
        "       CPU 0/KVM-1000    [000] .....     0.000000: kvm_pio: pio_write"
    )


def test_a_refused_msr_and_its_exception(tmp_path: Path) -> None:
    record(REFUSED, tmp_path / "t.txt")
    found = events((tmp_path / "t.txt").read_text())
    at = found.index(("kvm_msr", "msr_read dead = 0x0 (#GP)"))
    assert found[at + 1] == ("kvm_inj_exception", "#GP (0x0)")


def test_interrupts(images: Path, tmp_path: Path) -> None:
    """Who sends, who takes, what is injected and ended, in this order for each."""
    record(images / "timer.elf", tmp_path / "t.txt", memory="64M", max_instructions=100_000)
    found = events((tmp_path / "t.txt").read_text())
    names = [name for name, _ in found]
    for name in ("kvm_set_irq", "kvm_apic_accept_irq", "kvm_inj_virq", "kvm_eoi", "kvm_apic"):
        assert name in names, name
    at = next(n for n, event in enumerate(found) if event[0] == "kvm_apic_accept_irq")
    vector = int(found[at][1].split(" vec ")[1].split()[0])
    injected = next(event for event in found[at:] if event[0] == "kvm_inj_virq")
    assert injected == ("kvm_inj_virq", f"IRQ 0x{vector:x}")
    ended = next(event for event in found[at:] if event[0] == "kvm_eoi")
    assert ended == ("kvm_eoi", f"apicid 0 vector {vector}")


def test_processors_signal_each_other(images: Path, tmp_path: Path) -> None:
    record(images / "kvm_smp.elf", tmp_path / "t.txt", memory="64M", cpus=2, dialects=["kvm"])
    found = events((tmp_path / "t.txt").read_text())
    sent = [text for name, text in found if name == "kvm_apic_ipi"]
    assert any(text.endswith("(INIT|physical|assert|edge|dst)") for text in sent) or any(
        "INIT" in text for text in sent
    )
    assert any("SIPI" in text for text in sent)
    assert any(text.startswith("vcpu 1 reason ") for name, text in found if name == "kvm_exit")
    assert any(text.startswith("wait time ") for name, text in found if name == "kvm_vcpu_wakeup")


def test_a_stop_is_no_exit(tmp_path: Path) -> None:
    """What the model does between instructions is not told as if the guest had exited."""
    _, ledger, _ = record(elf64(ONE_OF_EACH), tmp_path / "t.txt", max_instructions=5)
    found = events((tmp_path / "t.txt").read_text())
    exits = [name for name, _ in found if name == "kvm_exit"]
    assert len(exits) == sum(cost.count for cost in ledger.exits.values())
