"""Sessions of the real gdb, as a user has them; `.ci/run` says RING1_GDB=required."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.vmm.gdb.conftest import Gdb, compiled

pytestmark = pytest.mark.oracle

BOOT = r"""
        .code16
        .globl _start, protected, long_mode, done
_start: xor %ax, %ax
        mov %ax, %ds
        lgdtl gdtr
        mov %cr0, %eax
        or $1, %eax
        mov %eax, %cr0
        ljmpl $8, $protected
        .code32
protected:
        mov $0x18, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $0x70000, %edi
        movl $0x71003, (%edi)
        movl $0x72003, 0x1000(%edi)
        movl $0x83, 0x2000(%edi)
        mov $0x20, %eax
        mov %eax, %cr4
        mov %edi, %cr3
        mov $0xc0000080, %ecx
        mov $0x100, %eax
        xor %edx, %edx
        wrmsr
        mov %cr0, %eax
        or $0x80000000, %eax
        mov %eax, %cr0
        ljmp $0x10, $long_mode
        .code64
long_mode:
        movabs $0x1122334455667788, %rax
        mov %rax, 0x80000
done:   mov $1, %al
        out %al, $0xf4
        hlt
        .align 8
gdt:    .quad 0, 0xcf9b000000ffff, 0xaf9b000000ffff, 0xcf93000000ffff
gdtr:   .word 31
        .long gdt
"""

LEDGER = r"""
/* Two accounts; the transfer of the third month writes one entry too far. */
static volatile struct {
    unsigned long entries[4], balance;
} bank = {{1}, 1000};
static void out(unsigned char value) { asm volatile("out %0, $0xf4" : : "a"(value)); }

__attribute__((noinline)) void book(int index, unsigned long value)
{
    bank.entries[index] = value;        /* index 4 is somebody else's */
}

__attribute__((noinline)) int audit(void)
{
    return bank.balance == 1000;
}

void _start(void)
{
    for (int month = 0; month < 3; month++) {
        for (int i = 0; i < 4; i++)
            book(i + (month == 2), 100 * month + i);
    }
    out(audit() ? 0 : 7);
    for (;;)
        asm volatile("hlt");
}
"""


def boot_sector(folder: Path) -> tuple[Path, Path]:
    """A flat image that goes from real mode to long mode, and its symbols."""
    elf = compiled(folder, "boot.S", BOOT, "-Wl,-Ttext=0x7c00", "-Wl,-n")
    flat = folder / "boot.bin"
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", str(elf), str(flat)], check=True)
    return flat, elf


STEPS = """
break protected
break long_mode
info registers rip cr0
stepi
stepi
info registers rip
printf "threads: "
info threads
set $steps = 0
while (($cr0 & 1) == 0)
  stepi
  set $steps = $steps + 1
end
printf "protected after %d steps\\n", $steps
info threads
continue
info threads
while (($efer & 0x400) == 0)
  stepi
end
print $cr0
print $efer
stepi
print/x $rax
reverse-stepi
print/x $rax
tbreak done
continue
print/x *(long*)0x80000
reverse-continue
reverse-continue
reverse-continue
info registers rip cr0
kill
"""


def test_a_boot_is_stepped_from_real_to_long_mode(gdb: Gdb, tmp_path: Path) -> None:
    flat, elf = boot_sector(tmp_path)
    said = gdb(STEPS, flat, symbols=elf)
    assert re.search(r"rip +0x7c00 ", said)
    assert re.search(r"rip +0x7c04 ", said)
    assert "(real, CPL 0" in said
    assert "protected after 4 steps" in said
    assert "(protected32, CPL 0" in said
    assert "PG" in said.partition("$1 = ")[2].splitlines()[0]
    assert "[ LME LMA ]" in said
    assert "(long64, CPL 0" in said
    assert "= 0x1122334455667788" in said
    assert said.count("= 0x1122334455667788") == 2  # RAX, then memory; not after the step back
    assert "No more reverse-execution history" in said
    last = said.rpartition("No more reverse-execution history")[2]
    assert re.search(r"rip +0x7c00 ", last)
    assert re.search(r"cr0 +0x60000010 ", last)  # manual, "Processor State After Reset"


def test_back_from_a_failed_check_to_the_write_that_broke_it(gdb: Gdb, tmp_path: Path) -> None:
    elf = compiled(tmp_path, "ledger.c", LEDGER, "-Wl,-Ttext-segment=0x100000")
    script = """
        break audit
        continue
        print bank.balance
        delete
        watch bank.balance
        reverse-continue
        bt
        print index
        print value
        reverse-finish
        info locals
        kill
    """
    said = gdb(script, elf, symbols=elf)
    assert "$1 = 203" in said
    assert re.search(r"Old value = 203\s+New value = 1000", said)
    stop = said.partition("New value = 1000")[2]
    assert re.search(r"book \(index=\S+, value=\S+\)\s+at .*ledger.c:10", stop)
    assert re.search(r"#0 .*book[\s\S]*\n#1 .*_start", stop)
    assert "$2 = 4" in stop
    assert "$3 = 203" in stop
    assert "month = 2" in stop


def test_conditions_watchpoints_and_finish(gdb: Gdb, tmp_path: Path) -> None:
    elf = compiled(tmp_path, "ledger.c", LEDGER, "-Wl,-Ttext-segment=0x100000")
    script = """
        break book if index == 4
        continue
        print value
        delete
        rwatch bank.balance
        continue
        awatch bank.entries[0]
        info watchpoints
        reverse-continue
        print bank.entries[0]
        set var bank.balance = 5
        print bank.balance
        monitor history fork
        set var bank.balance = 5
        print bank.balance
        continue
        continue
    """
    said = gdb(script, elf, symbols=elf)
    assert "$1 = 203" in said
    assert re.search(r"Hardware read watchpoint 2: bank.balance\s+Value = 203", said)
    assert "Cannot access memory at address" in said  # the past is read-only
    assert re.search(r"\$3 = 203\s", said)
    assert re.search(r"\$4 = 5\s", said)
    assert "debug_exit" in said


def test_exits_registers_and_monitor(gdb: Gdb, images: Path) -> None:
    script = """
        break *0x10000c
        info mem
        print $cr0
        monitor exit-break add reason=CPUID & n>=2
        continue
        print $exit_reason
        info registers vmx
        print $vmx.exit_number == $exit_number
        monitor exit next
        continue
        print $vmx.exit_reason
        monitor vmcs diff GUEST_RIP
        monitor no-such-verb
        bt 1
        kill
    """
    said = gdb(script, images / "hello.elf", symbols=images / "hello.elf64")
    assert re.search(r"0x0+e0000\s+0x0+100000\s+ro", said)
    assert "[ PE ET ]" in said
    assert re.search(r"vCPU 0: exit \d+: CPUID, qualification 0x0", said)
    assert "#0  0x" in said
    assert "$2 = 10" in said
    assert "exit_reason = 0xa" in said
    assert "$3 = 1" in said
    assert "GUEST_RIP 0x" in said
    assert "no-such-verb is not known" in said
    assert "SIGTRAP" in said


def test_vcpus_are_threads(gdb: Gdb, images: Path) -> None:
    script = """
        info threads
        break test_main
        continue
        thread 2
        info registers rip
        thread apply all print $cr0
        delete
        monitor exit-break add gpa in 0xfee00000..0xfee01000 & write
        continue
        monitor sched
        reverse-stepi
        kill
    """
    said = gdb(script, "--cpus", 3, images / "smp.elf", symbols=images / "smp.elf64")
    assert re.search(r'Thread 1.3 "vCPU 2" \(real, CPL 0, non-root, wait-for-SIPI\)', said)
    assert "[Switching to thread 2 (Thread 1.2)]" in said
    assert "Thread 3 (Thread 1.3" in said
    assert re.search(r"exit \d+: EPT_VIOLATION, qualification 0x\w+, gpa 0xfee00", said)
    assert "vCPU 2: real, CPL 0, non-root, wait-for-SIPI" in said


def test_a_breakpoint_in_rom_is_a_hardware_one_and_all_addresses_work(
    gdb: Gdb, images: Path
) -> None:
    script = """
        set debug remote 1
        break *0xf0000
        break *0x10000e
        stepi
        set debug remote 0
        x/4xb 0xfee00000
        monitor phys on
        x/4xb 0x100000
        find /w 0x100000, 0x101000, 0x1badb002
        kill
    """
    said = gdb(script, images / "hello.elf", symbols=images / "hello.elf64")
    assert "$Z1,f0000,1" in said
    assert "$Z0,10000e,1" in said
    assert "Cannot access memory at address 0xfee00000" in said
    assert "pattern found" in said
