"""Random hypercalls and page-table updates: `python -m tests.vmm.pv.xen.fuzz CALLS UPDATES`.

A guest may end any way that is written down; the frames' counts agree with its tables ever after.
"""

import random
import struct
import sys

from tests.vmm.pv.xen.audit import audit
from tests.vmm.pv.xen.calls import DATA, END, Call, CallGuest, linear

SELF = 0x7FF0
INTERESTING = (
    0, 1, 2, 3, 7, 8, 63, 64, 4095, 4096, 0x7FF0, 1 << 31, (1 << 32) - 1, 1 << 47, (1 << 47) - 1,
    0xFFFF_8000_0000_0000, 0xFFFF_8200_0000_0000, 0xFFFF_8800_0000_0000, (1 << 64) - 1, 1 << 63,
)  # fmt: skip
UNMADE = 0x5EED_5EED_5EED_5EED
ENDING = {(29, 1), (29, 2), (29, 3)}
ENDS = {"poweroff", "triple_fault", "halted", "limit"}


def value(dice: random.Random, guest: CallGuest) -> int:
    kind = dice.randrange(5)
    if kind == 0:
        return dice.choice(INTERESTING)
    if kind == 1:
        return linear(dice.randrange(0, END - DATA, 8))
    if kind == 2:
        return dice.randrange(64)
    if kind == 3:
        return guest.vm.memory.ram.size // 4096 * dice.randrange(3) // 2 - dice.randrange(64)
    return dice.getrandbits(64)


def random_calls(seed: int, count: int) -> int:
    """Make `count` random hypercalls in one guest; return how many it made before it ended."""
    dice = random.Random(seed)
    with CallGuest(count) as guest:
        words = [value(dice, guest) for _ in range(8192)]
        guest.put(0, struct.pack(f"<{len(words)}Q", *(w & (1 << 64) - 1 for w in words)))
        calls: list[Call] = []
        while len(calls) < count:
            number = dice.choice((dice.randrange(42), dice.randrange(42), value(dice, guest)))
            arguments = tuple(value(dice, guest) for _ in range(6))
            if number != 23 and (number, arguments[0] & 0xFFFF_FFFF) not in ENDING:
                calls.append(Call(number, arguments))
        found, result = guest.run(calls)
        assert result.reason in ENDS, (seed, result.message)
        assert guest.engine.audit()[0] == 0, (seed, guest.engine.audit())
        assert audit(guest) == [], seed
    return sum(1 for one in found if one != UNMADE)


def random_updates(seed: int, count: int, most: int = 128) -> int:
    """Make `count` updates of page tables; return how many were carried out."""
    dice = random.Random(seed)
    calls_needed = -(-count // most)
    with CallGuest(calls_needed) as guest:
        root = guest.vm.vcpus[0].regs.cr3 // 4096
        tables = [n for n in range(guest.engine.frames) if _type(guest, n) in (1, 2, 3)]
        pages = [guest.mfn(offset) for offset in range(0x10_0000, 0x18_0000, 4096)]
        requests = bytearray()
        for _ in range(calls_needed * most):
            table = dice.choice((*tables, root, dice.choice(pages)))
            target = dice.choice((*pages, *tables, root, dice.randrange(guest.engine.frames + 64)))
            flags = dice.choice((0, 0x65, 0x67, 0x63, 0x61, dice.getrandbits(12)))
            index = dice.randrange(300, 500)
            requests += struct.pack("<QQ", table << 12 | index << 3 | dice.choice((0, 0, 0, 2)),
                                    target << 12 | flags)  # fmt: skip
        calls = []
        for number in range(calls_needed):
            at = 0x20_000 + number * most * 16
            assert at + most * 16 <= 0x10_0000
            block = bytes(requests[number * most * 16 : (number + 1) * most * 16])
            calls.append(Call(1, (guest.put(at, block), most, guest.put(8, b""), SELF)))
        found, result = guest.run(calls)
        assert result.reason in ENDS, (seed, result.message)
        assert guest.engine.audit()[0] == 0, (seed, guest.engine.audit())
        assert audit(guest) == [], seed
    return sum(1 for one in found if one == 0)


def _type(guest: CallGuest, mfn: int) -> int:
    frame = guest.engine.frame(mfn)
    return 0 if frame is None else frame.type


if __name__ == "__main__":
    wanted_calls, wanted_updates = map(int, sys.argv[1:3])
    made = done = seed = 0
    while made < wanted_calls:
        made += random_calls(seed, 5000)
        seed += 1
    sys.stdout.write(f"{made} hypercalls in {seed} guests; both audits find nothing\n")
    sys.stdout.flush()
    for seed in range(-(-wanted_updates // 50_000)):
        done += random_updates(seed, 50_000, most=1)
    sys.stdout.write(f"{wanted_updates} updates, {done} carried out; both audits find nothing\n")
