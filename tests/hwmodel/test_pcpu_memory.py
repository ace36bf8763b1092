"""What the processor remembers of memory: translations until INVLPG, code never."""

from collections.abc import Callable

import pytest

from hwmodel.arch.vmcs import Field
from hwmodel.mem.fault import Fault
from hwmodel.mem.ram import PAGE
from hwmodel.pcpu import WRITE
from hwmodel.vmx.state import Vmcs
from tests.bare import CODE, MIB, Bare, assemble
from vmm.memory.ept import Slot

Make = Callable[..., Bare]
TABLE = 0x20000  # of the second 2 MiB, in 4 KiB pages
VIEW = 2 * MIB + 0x10_0000
ENTRY = TABLE + 8 * 0x100


def test_a_translation_stays_until_invlpg(bare: Make) -> None:
    machine = bare(pages_4k=True)
    machine.word(0x30_5000, 0x5555)
    machine.word(0x30_6000, 0x6666)
    machine.word(ENTRY, 0x30_5000 | 3)
    machine.run(f"""
        mov rbx, {VIEW}
        mov rax, [rbx]
        mov dword ptr [{ENTRY}], {0x30_6000 | 3}
        mov rcx, [rbx]
        invlpg [rbx]
        mov rdx, [rbx]
        hlt
    """)
    assert (machine.regs.rax, machine.regs.rcx, machine.regs.rdx) == (0x5555, 0x5555, 0x6666)


@pytest.mark.parametrize("flush", ["mov rax, cr3; mov cr3, rax", "invlpg [rbx]"])
def test_a_page_taken_away_faults_after_the_flush(bare: Make, flush: str) -> None:
    machine = bare(pages_4k=True)
    machine.intercept(14)
    machine.run(f"""
        mov rbx, {VIEW}
        mov [rbx], rbx
        mov dword ptr [{ENTRY}], 0
        mov [rbx], rbx
        {flush}
        nop
        mov [rbx], rbx
    """)
    assert machine.vmcs[Field.EXIT_QUALIFICATION] == VIEW
    assert machine.vmcs[Field.VM_EXIT_INTR_ERROR_CODE] == 2


def test_a_missing_page_is_not_remembered(bare: Make) -> None:
    """*Details of TLB Use*: no entry is made for a translation that faults."""
    machine = bare(pages_4k=True)
    machine.word(ENTRY, 0)
    machine.gate(14, CODE + 0x200)
    machine.load(f"mov dword ptr [{ENTRY}], {0x30_5000 | 3}; add rsp, 8; iretq", CODE + 0x200)
    vmexit = machine.run(f"mov rbx, {VIEW}; mov [rbx], rbx; hlt")
    assert vmexit.name == "HLT"
    assert machine.peek(0x30_5000) == VIEW
    assert machine.regs.cr2 == VIEW


def test_accessed_and_dirty_bits(bare: Make) -> None:
    machine = bare(pages_4k=True)
    vmexit = machine.run(f"mov rax, [{VIEW}]; cpuid; mov [{VIEW}], rax; hlt")
    assert machine.peek(ENTRY) & 0x60 == 0x20
    machine.skip(vmexit)
    machine.enter()
    assert machine.peek(ENTRY) & 0x60 == 0x60
    assert machine.peek(0x3008) & 0x60 == 0x20  # a directory has no D


def test_write_protection_follows_wp(bare: Make) -> None:
    machine = bare(pages_4k=True)
    machine.intercept(14)
    machine.word(ENTRY, VIEW | 1)
    machine.vmcs[Field.CR0_GUEST_HOST_MASK] = 0
    vmexit = machine.run(f"""
        mov byte ptr [{VIEW}], 1
        mov rax, cr0
        or eax, 0x10000
        mov cr0, rax
        mov byte ptr [{VIEW}], 2
    """)
    assert vmexit.name == "EXCEPTION_NMI"
    assert vmexit.interruption_error == 3
    assert machine.peek(VIEW, 1) == 1


def test_code_that_changes_its_own_block(bare: Make) -> None:
    machine = bare()
    vmexit = machine.run("""
        mov ecx, 2
    again:
        mov byte ptr [rip + target + 1], 0x77
        nop
    target:
        mov al, 1
        mov bl, al
        mov byte ptr [rip + target + 1], 1
        dec ecx
        jnz again
        hlt
    """)
    assert vmexit.name == "HLT"
    assert machine.regs.rbx & 0xFF == 0x77
    assert vmexit.instructions == 1 + 2 * 7


ALIASED = 0x20_3000


def test_code_written_through_another_address(bare: Make) -> None:
    machine = bare(pages_4k=True)
    machine.word(ENTRY, ALIASED | 3)
    code = assemble("mov eax, 1; ret", ALIASED)
    machine.ram.view[ALIASED : ALIASED + len(code)] = code
    vmexit = machine.run(f"""
        mov rbx, {ALIASED}
        mov rdx, {VIEW}
        call rbx
        mov esi, eax
        mov byte ptr [rdx + 1], 2
        call rbx
        mov edi, eax
        mov byte ptr [rbx + 1], 3
        call rdx
        hlt
    """)
    assert vmexit.name == "HLT"
    assert (machine.regs.rsi, machine.regs.rdi, machine.regs.rax) == (1, 2, 3)


def test_code_written_by_the_host(bare: Make) -> None:
    machine = bare()
    machine.run("mov eax, 1; hlt")
    assert machine.regs.rax == 1
    machine.ram.view[CODE + 1] = 9
    machine.pcpu.host_wrote(CODE + 1, 1)
    machine.regs.rip = CODE
    machine.enter()
    assert machine.regs.rax == 9


def test_repeated_store_over_code_that_ran(bare: Make) -> None:
    """REP STOSB writes HLTs over what follows it, in its own page."""
    machine = bare()
    vmexit = machine.run("""
        mov al, 0xf4
        lea rdi, [rip + after]
        mov ecx, 3
        rep stosb
    after:
        nop
        nop
        nop
        ud2
    """)
    start = len(assemble("mov al, 0xf4; lea rdi, [rip + 0x100]; mov ecx, 3; rep stosb"))
    assert (vmexit.name, vmexit.rip) == ("HLT", CODE + start)


def test_the_hosts_door_to_guest_memory(bare: Make) -> None:
    machine = bare(pages_4k=True)
    machine.load("hlt")
    machine.enter()
    machine.word(ENTRY, 0x30_5000 | 1)
    assert machine.pcpu.translate(machine.vmcs, VIEW + 5) == 0x30_5005
    assert machine.peek(ENTRY) & 0x20 == 0  # looking leaves no trace
    assert machine.pcpu.read(machine.vmcs, VIEW, 2) == bytes(2)
    assert machine.peek(ENTRY) & 0x20
    machine.regs.cr0 |= 0x10000
    assert machine.pcpu.write(machine.vmcs, VIEW, b"xy") == Fault(14, 3, VIEW)
    machine.word(TABLE + 8 * 0x101, 0)
    crossing = machine.pcpu.write(machine.vmcs, VIEW + 0xFFF, b"xy")
    assert crossing is not None
    assert crossing.vector == 14
    outside = machine.pcpu.translate(machine.vmcs, 0x6000_0000, WRITE)
    assert outside == Fault(14, 2, 0x6000_0000)


def test_the_dirty_log_names_pages_written_since(bare: Make) -> None:
    machine = bare()
    machine.run("mov edi, 0x300000; mov [rdi], edi; hlt")
    log = machine.pcpu.dirty_log
    page = 0x300
    assert log[page // 64] >> page % 64 & 1
    assert not log[0x301 // 64] >> 0x301 % 64 & 1
    for word in range(len(log)):
        log[word] = 0
    machine.pcpu.harvest_dirty()
    machine.run("mov edi, 0x301000; mov [rdi], edi; hlt", rip=CODE)
    assert log[0x301 // 64] >> 0x301 % 64 & 1
    assert not log[page // 64] >> page % 64 & 1


@pytest.mark.parametrize("what", ["key", "execute-only"])
def test_code_that_may_run_but_not_be_read(bare: Make, what: str) -> None:
    """A page that code was fetched from just now is no more readable for that."""
    machine = bare(pages_4k=True)
    machine.intercept(14)
    machine.load("mov eax, 7; ret", VIEW)
    if what == "key":
        machine.regs.cr4 |= 1 << 22
        machine.vmcs.native.pkru = 1 << 2
        machine.word(ENTRY, VIEW | 7 | 1 << 59)
    else:
        machine.ept.map(Slot(VIEW, PAGE, VIEW))
        root = machine.ept.root
        for level in (4, 3, 2):
            root = machine.peek(root + 8 * (VIEW >> 3 + 9 * level & 511)) & -PAGE
        machine.word(root + 8 * (VIEW >> 12 & 511), VIEW | 0x34)
    vmexit = machine.run(f"mov rbx, {VIEW}; call rbx; mov rcx, [rbx]; hlt")
    assert vmexit.name == ("EXCEPTION_NMI" if what == "key" else "EPT_VIOLATION")
    assert machine.regs.rax == 7
    if what == "key":
        assert vmexit.interruption_error == 0x21
    else:
        assert vmexit.qualification & 0x3F == 1 | 4 << 3


def test_a_vmcs_that_is_gone_is_not_written(bare: Make) -> None:
    """The engine holds the x87 registers of the last one it looked through, to save them later."""
    machine = bare()
    image = machine.vmcs.save()
    for _ in range(2000):
        passing = Vmcs()
        passing.restore(image)
        assert machine.pcpu.translate(passing, CODE) == CODE
    assert machine.run("hlt").name == "HLT"


@pytest.mark.parametrize("pge", [False, True])
def test_cr3_forgets_pages_that_made_room_for_others(bare: Make, pge: bool) -> None:
    """Unicorn keeps what another page's entry displaced: a flush of single pages must find it."""
    machine = bare(pages_4k=True)
    pages = 64
    for page in range(pages):
        machine.word(ENTRY + 8 * page, 0x30_5000 | 3)
    machine.word(0x30_5000, 0x5555)
    machine.word(0x30_6000, 0x6666)
    machine.regs.cr4 |= pge << 7
    machine.run(f"""
        mov rbx, {VIEW}
        mov rsi, {VIEW & 0xFFFFF | MIB}
        mov ecx, {pages}
    fill:
        mov rax, [rbx]
        mov rax, [rsi]
        add rbx, 4096
        add rsi, 4096
        dec ecx
        jnz fill
        mov rdi, {ENTRY}
        mov ecx, {pages}
    change:
        mov qword ptr [rdi], {0x30_6000 | 3}
        add rdi, 8
        dec ecx
        jnz change
        mov rax, cr3
        mov cr3, rax
        mov ecx, {pages}
        xor edx, edx
    look:
        sub rbx, 4096
        cmp qword ptr [rbx], 0x6666
        setne al
        movzx eax, al
        add edx, eax
        dec ecx
        jnz look
        hlt
    """)
    assert machine.regs.rdx == 0
