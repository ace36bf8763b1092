"""Forged frames for the iret hypercall: `python -m tests.vmm.pv.xen.frames FRAMES`.

A PV guest returns by one frame of a list after the other; wherever that lands, in its kernel or in
a program of its own tables, a trap, a callback or a jump brings it to the next. It lands on
privileged and sensitive instructions, with any selectors, flags and stacks. The guest may end any
way that is written down; the frames' counts agree ever after, and the hypervisor's own pages are as
they were.
"""

import random
import struct
import sys

import keystone

from hwmodel.cpu.xen import layout_of
from tests.vmm.pv.xen.audit import audit
from tests.vmm.pv.xen.calls import BASE, CODE, DATA, END, LIST, PvGuest, image, linear
from vmm import VM, Result

FRAME_BYTES = 72
MOST = (DATA - LIST) // FRAME_BYTES
MASK64 = (1 << 64) - 1
TRAPS, OPERATION, STACK, PROGRAM_STACK, PADS = 0, 0x2000, 0x8000, 0xC000, 0x800
ENDS = {"poweroff", "triple_fault", "halted", "limit"}
_SOURCE = """
    xor eax, eax
    movabs rdi, {traps}
    syscall
    mov eax, 4
    lea rdi, [rip + next]
    mov rsi, rdi
    mov rdx, rdi
    syscall
    mov eax, 3
    mov edi, 0xe02b
    movabs rsi, {stack}
    syscall
    mov eax, 26
    movabs rdi, {operation}
    mov esi, 1
    xor edx, edx
    mov r10d, 0x7ff0
    syscall
    movabs r13, {list}
    mov r14, {count}
next:
    test r14, r14
    jz over
    dec r14
    mov rsp, r13
    add r13, 72
    mov eax, 23
    syscall
    ud2
over:
    movabs rsp, {stack}
    mov eax, 29
    mov edi, 2
    movabs rsi, {reason}
    syscall
    ud2
"""
_PADS = (
    "int3", "ud2", "hlt", "cli", "sti", "pushfq", "popfq", "mov rax, cr3", "mov cr3, rax",
    "int 0x80", "mov rax, cr0", "mov cr4, rax", "mov rax, dr7", "iretq", "retfq", "swapgs",
    "in al, dx", "out dx, eax", "rdmsr", "wrmsr", "rdtsc", "cpuid", "clts", "wbinvd", "lgdt [rsp]",
    "lidt [rsp]", "lldt ax", "ltr ax", "str ax", "sldt eax", "sidt [rsp]", "mov ds, ax",
    "mov ss, ax", "mov fs, ax", "push rax", "pop rax", "fninit", "invlpg [rsp]", "sysretq",
    "sysexit", "lsl eax, eax", "verr ax",
    "int1", "int 13", "int 14", "wrfsbase rax", "xsetbv", "nop",
)  # fmt: skip
_FORCED_CPUID = bytes.fromhex("0f0b78656e0fa2")
"""ud2; "xen"; cpuid."""


def _assembled(text: str) -> bytes:
    try:
        return bytes(keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64).asm(text)[0])
    except keystone.KsError:  # not known to it: an instruction that is none
        return b"\x0f\x0b"


class FrameGuest(PvGuest):
    """The guest; instructions to land on are at CODE + PADS, 16 bytes each."""

    def __init__(self, count: int) -> None:
        places = {
            "traps": linear(TRAPS), "stack": linear(STACK), "operation": linear(OPERATION),
            "list": BASE + LIST, "reason": linear(END - DATA - 8),
        }  # fmt: skip
        code = _assembled(_SOURCE.format(count=count, **{k: hex(v) for k, v in places.items()}))
        pads = [*map(_assembled, _PADS), _FORCED_CPUID, b"\x2e\x0f\x0b"]
        self.pads = [BASE + CODE + PADS + 16 * number for number in range(len(pads))]
        landing = b"".join(pad.ljust(16, b"\xcc") for pad in pads)
        most = 400 * count + 100_000
        self.vm = VM(
            image(code.ljust(PADS, b"\xcc") + landing), technique="pv", memory="16M",
            max_instructions=most,
        )  # fmt: skip
        assert self.vm.domain is not None
        self.domain, self.engine = self.vm.domain, self.vm.domain.engine
        self.next = BASE + CODE + code.index(bytes.fromhex("4d85f6"))
        self._prepare()

    def _prepare(self) -> None:
        handlers = [(v, 3 if v in (1, 3, 4, 128) else 0) for v in (*range(20), 128)]
        table = b"".join(struct.pack("<BBHIQ", v, f, 0xE033, 0, self.next) for v, f in handlers)
        self.vm.memory.write(DATA + TRAPS, table + bytes(16))
        root = self.vm.vcpus[0].regs.cr3 >> 12
        self.vm.memory.write(DATA + OPERATION, struct.pack("<QQQ", 15, root, 0))

    def own_pages(self) -> bytes:
        """The hypervisor's: its page of the GDT, and the list of machine frames."""
        ram, layout = self.vm.memory.ram.view, layout_of(self.engine.frames, 1)
        m2p = layout.m2p * 4096
        gdt = layout.gdt_page * 4096
        return bytes(ram[gdt : gdt + 4096]) + bytes(ram[m2p : m2p + 8 * self.engine.frames])

    def run(self, frames: list[tuple[int, ...]]) -> Result:
        """Return by each of them: RAX, R11, RCX, flags, RIP, CS, RFLAGS, RSP, SS."""
        packed = (struct.pack("<9Q", *(word & MASK64 for word in frame)) for frame in frames)
        self.vm.memory.write(LIST, b"".join(packed))
        return self.vm.run()


def forged(dice: random.Random, guest: FrameGuest) -> tuple[int, ...]:
    """A frame that is hardly one; the kernel's stack is mostly good, else a trap is the last."""
    user = dice.randrange(3) > 0
    rip = dice.choice((
        *(dice.choice(guest.pads) for _ in range(12)), guest.next, 0, 0x1234, 1 << 47,
        0xFFFF_8000_0000_1000, 0xFFFF_8200_0000_0000, MASK64, dice.getrandbits(64),
    ))  # fmt: skip
    cs = dice.choice((*(0xE033,) * 12, 0xE02B, 0xE023, 0xE019, 0, 4, 0x10, 0xFFF8, 0x33,
                      dice.getrandbits(16), dice.getrandbits(64)))  # fmt: skip
    cs = cs | 3 if user else cs & ~3
    ss = dice.choice((0xE02B, 0xE02B, 0, 3, 0xE033, dice.getrandbits(16), dice.getrandbits(64)))
    flags = dice.choice(
        (0x202, 0x202, 0, 0x302, 0x3202, 0x20202, 0x4202, 0x40202, dice.getrandbits(64))
    )
    stack = linear(PROGRAM_STACK)
    if user or dice.randrange(2000) == 0:
        stack = dice.choice(
            (stack, stack, 0, 8, 1 << 47, 0xFFFF_8000_0000_2000, dice.getrandbits(64))
        )
    words = (dice.getrandbits(dice.choice((1, 16, 64))) for _ in range(4))
    return (*words, rip, cs, flags, stack, ss)


def random_frames(seed: int, count: int) -> int:
    """Return by up to `count` random frames in one guest; how many were taken before it ended."""
    dice = random.Random(seed)
    with FrameGuest(count) as guest:
        before = guest.own_pages()
        result = guest.run([forged(dice, guest) for _ in range(count)])
        assert result.reason in ENDS, (seed, result.message)
        assert result.reason != "triple_fault" or result.message, seed
        assert guest.engine.audit()[0] == 0, (seed, guest.engine.audit())
        assert audit(guest) == [], seed
        assert guest.own_pages() == before, seed
        return guest.domain.hypercalls().get("iret", 0)


if __name__ == "__main__":
    wanted, taken, guests = int(sys.argv[1]), 0, 0
    while taken < wanted:
        taken += random_frames(guests, 5000)
        guests += 1
    sys.stdout.write(f"{taken} frames in {guests} guests; both audits find nothing\n")
