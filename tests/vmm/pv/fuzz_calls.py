"""Fuzzes the hypercall face of the native and of KVM's dialect, in a whole VM.

`python -m tests.vmm.pv.fuzz_calls CALLS SEED` runs a campaign and says what came back how often;
the tests run a small one. Registers and the memory that calls look at are wild, or nearly right.
"""

import random
import sys
from collections import Counter
from struct import pack

from hwmodel.arch.vmcs import Field
from tests.images import OFF, elf64
from vmm import VM, Outcome
from vmm.activity import Activity
from vmm.exits.hypercall import handle_vmcall
from vmm.exits.msr import handle_msr_write
from vmm.inject import deliver_pending
from vmm.memory.guest import PRIVATE_PAGES
from vmm.pv.kvm.abi import Call as KvmCall
from vmm.pv.native.abi import HYPERCALL_PAGE_MSR, NOWHERE, TAG, Call, Error, Feature
from vmm.pv.native.native import Native
from vmm.vcpu import Vcpu

MEMORY = 4 << 20
LOW = 0xFFFF_FFFF
OUTCOMES = (Outcome.SKIP, Outcome.RESUME, Outcome.YIELD, Outcome.HALT)
_CHECK_EACH = 1000
NEARLY: dict[Call, tuple[int, ...]] = {
    Call.RING_SETUP: (3, 0, 10, 0x60), Call.RING_KICK: (3,), Call.SET_PAGE: (6,),
    Call.SET_TIMER: (0, 0, 0x100), Call.SET_VECTOR: (4, 0x100), Call.CONTRACT_ACCEPT: (20, 3),
}  # fmt: skip
"""Small arguments of calls that would otherwise hardly ever be right: below what."""


def number(chance: random.Random) -> int:
    """An argument: any, an address in RAM or at its end, a small number, a bit, a special value."""
    return chance.choice(
        (
            lambda: chance.getrandbits(64),
            lambda: chance.randrange(MEMORY) & -64,
            lambda: chance.randrange(MEMORY),
            lambda: MEMORY - chance.choice((1, 8, 32, 64, 4096)),
            lambda: chance.randrange(40),
            lambda: 1 << chance.randrange(64),
            lambda: chance.choice((0, NOWHERE, NOWHERE - 1, LOW, 1 << 63, 0x52310000)),
        )
    )()


def plant(vm: VM, chance: random.Random) -> int:
    """Write something like a ring somewhere, with calls in it; return where."""
    at = chance.randrange(1 << 20, MEMORY - (1 << 16)) & -64
    entries = chance.choice((1, 2, 4, 8, 16, 3, 1 << 20))
    head = chance.choice((0, LOW, chance.getrandbits(32)))
    tail = head + chance.choice((0, 1, entries, entries + 1, chance.getrandbits(32)))
    data = pack("<IIII", entries, chance.choice((0, 1, 2)), head, tail & LOW).ljust(64, b"\0")
    for _ in range(16):
        call = TAG + chance.choice(list(Call)) if chance.random() < 0.9 else number(chance)
        data += pack("<8Q", call, *(number(chance) for _ in range(7)))
    vm.memory.write(at, data)
    return at


def call(vm: VM, vcpu: Vcpu, chance: random.Random) -> tuple[str, int]:
    """Make one; return its name and result."""
    regs, native = vcpu.regs, chance.random() < 0.8
    choice = chance.choice(list(Call) if native else list(KvmCall))
    regs.rax = (TAG if native else 0) + choice if chance.random() < 0.97 else number(chance)
    names = ("rbx", "rcx", "rdx", "rsi", "rdi", "r8")
    for name in names:
        setattr(regs, name, number(chance))
    if chance.random() < 0.2:
        regs.rbx = plant(vm, chance)
        regs.rcx = chance.choice((regs.rbx, chance.randrange(8)))
    if choice in NEARLY and chance.random() < 0.5:
        for name, most in zip(names, NEARLY[Call(choice)], strict=False):
            if most:
                setattr(regs, name, chance.randrange(most))
    if choice is Call.CONTRACT_ACKNOWLEDGE and chance.random() < 0.99:
        regs.rbx = 1 << 40  # else nothing would be active for long
    made = choice.name if regs.rax & LOW & ~0xFFFF in (0, TAG) else "no call"
    bits = 64 if vcpu.code_bits() == 64 else 32  # the others are still in real mode
    outcome = handle_vmcall(vcpu, vm.pcpu.last_exits(1)[0])
    assert outcome in OUTCOMES, outcome
    return made, regs.rax - (1 << bits) if regs.rax >> bits - 1 else regs.rax


def campaign(calls: int, seed: int, dialects: str = "native,kvm") -> Counter[str]:
    """Make so many calls on three processors. Raises AssertionError for what may not happen."""
    chance, seen = random.Random(seed), Counter[str]()
    code = f"again: cpuid; jmp again; {OFF}"
    with VM(elf64(code), memory="4M", cpus=3, dialects=dialects) as vm:
        next(iter(vm))
        native = vm.dialects["native"]
        assert isinstance(native, Native)
        start = vm.memory.private_page(0)
        private = bytes(vm.memory.ram.view[start : start + PRIVATE_PAGES * 4096])
        for done in range(calls):
            vcpu = chance.choice(vm.vcpus)
            vcpu.activity = Activity.RUNNING
            if done % _CHECK_EACH == 0:
                renew(native, chance)
                assert bytes(vm.memory.ram.view[start : start + len(private)]) == private
            name, result = call(vm, vcpu, chance)
            error = Error(-result).name if -len(Error) <= result < 0 else "other" * (result < 0)
            seen[f"{name} {error or 'done'}"] += 1
            settle(vm, vcpu, chance)
        assert vm.digest()
    return seen


def renew(native: Native, chance: random.Random) -> None:
    """Have most features active, so that the calls behind them are reached; revoke one."""
    contract = native.contract
    for feature in Feature:
        contract.offer(feature)
    for feature in Feature:
        if contract.state[feature].name in ("OFFERED", "ACCEPTED"):
            contract._move(feature, type(contract.state[feature]).ACTIVE)
    contract.revoke(chance.choice(list(Feature)))
    native.referee.breaches.clear()


def settle(vm: VM, vcpu: Vcpu, chance: random.Random) -> None:
    """What comes between two exits: events that are due, time, the referee, an entry."""
    vcpu.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] = 0
    vcpu.gave_turn = False
    if chance.random() < 0.05:
        vm.clock.now += chance.randrange(1, 1 << 20)
        event = vm.board.next_event()
        if event is not None and event <= vm.clock.now:
            vm.board.fire()
    if chance.random() < 0.05:
        for watcher in vm.dialects.watchers:
            watcher(vcpu, None)
    if chance.random() < 0.01:
        vcpu.regs.rcx, vcpu.regs.rax = HYPERCALL_PAGE_MSR, number(chance) & LOW
        vcpu.regs.rdx = chance.choice((0, 0, LOW))
        handle_msr_write(vcpu, vm.pcpu.last_exits(1)[0])
        vcpu.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] = 0
    deliver_pending(vcpu)


def main() -> None:
    """Run a campaign of the length and with the seed that the command line gives."""
    calls, seed = int(sys.argv[1]), int(sys.argv[2])
    for name, times in sorted(campaign(calls, seed).items()):
        sys.stdout.write(f"{times:9} {name}\n")


if __name__ == "__main__":
    main()
