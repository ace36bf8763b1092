"""KVM's dialect, part by part.

Judged by Linux Documentation/virt/kvm/x86/{cpuid,msr,hypercalls}.rst.
"""

import random
from struct import unpack_from

import pytest

from tests.vmm.pv.processors import EPOCH, FakeProcessor, machine, processors
from vmm.errors import NotBuiltError, UsageError
from vmm.pv.dialect import Hypercall, Machine
from vmm.pv.kvm.abi import Call, Error, Feature, KvmMsr
from vmm.pv.kvm.features import Offer
from vmm.pv.kvm.kvm import Kvm
from vmm.pv.roster import Roster, build_roster, choose

FUZZED = 100_000
AT = 0x1000


def kvm(*changes: str, cpus: int = 2) -> tuple[Machine, Kvm, list[FakeProcessor]]:
    on = machine(cpus)
    dialect, cpu = Kvm(on, Offer.of(changes)), processors(on)
    dialect.attach(list(cpu))
    return on, dialect, cpu


def call(number: int, *arguments: int, wide: bool = True) -> Hypercall:
    a, b, c, d, e, f = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    return Hypercall(number, (a, b, c, d, e, f), wide)


class TestChoice:
    def test_words(self) -> None:
        assert choose(()) == {"kvm": ()}
        assert choose(("kvm", "-steal_time", "-pv_eoi")) == {"kvm": ("-steal_time", "-pv_eoi")}
        assert choose(("-steal_time",)) == {"kvm": ("-steal_time",)}
        assert choose(("none",)) == {}

    @pytest.mark.parametrize(
        "words", [("kwm",), ("none", "kvm"), ("kvm", "-steal"), ("-",), ("+",), ("kvm", "+")]
    )
    def test_refused_in_one_line(self, words: tuple[str, ...]) -> None:
        with pytest.raises(UsageError) as caught:
            build_roster(words, machine())
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("--dialect ")

    @pytest.mark.parametrize("name", ["hyperv"])
    def test_planned(self, name: str) -> None:
        with pytest.raises(NotBuiltError, match="not built yet"):
            choose((name,))

    @pytest.mark.parametrize("feature", sorted(Offer().features))
    def test_each_feature_can_be_switched_off(self, feature: Feature) -> None:
        _, dialect, _ = kvm(f"-{feature.name.lower()}")
        word = dialect.leaves(0x40000000)[0x40000001].eax
        without = Offer().feature_word() & ~(1 << feature)
        if feature is Feature.ASYNC_PF:  # Linux asks for the other only, and uses the MSRs of both
            without &= ~(1 << Feature.ASYNC_PF_INT)
        assert word == without

    def test_off_means_no_register_and_no_call(self) -> None:
        _, dialect, cpu = kvm("-steal_time", "-pv_eoi", "-pv_send_ipi", "-clocksource")
        gone = {KvmMsr.STEAL_TIME, KvmMsr.PV_EOI_EN, KvmMsr.SYSTEM_TIME, KvmMsr.WALL_CLOCK}
        assert not gone & dialect.msrs()
        assert KvmMsr.SYSTEM_TIME_NEW in dialect.msrs()
        assert dialect.hypercall(cpu[0], call(Call.SEND_IPI, 1)) == -Error.NOSYS
        assert dialect.hooks.scheduled is dialect.hooks.entering is None

    def test_a_hint_is_switched_on(self) -> None:
        _, dialect, _ = kvm("+realtime")
        assert dialect.leaves(0x40000000)[0x40000001].edx == 1


class TestRoster:
    def test_two_dialects_stand_side_by_side(self) -> None:
        on = machine()
        both = Roster((Kvm(on, Offer()), Kvm(on, Offer.of(("-steal_time",)))))
        assert both.leaves[0x40000000].eax == 0x40000010
        assert both.leaves[0x40000100].eax == 0x40000110
        assert both.leaves[0x40000101].eax == Offer().feature_word() & ~(1 << Feature.STEAL_TIME)
        assert both.leaves[0x40000100][1:] == both.leaves[0x40000000][1:]

    def test_an_empty_one_knows_nothing(self) -> None:
        nobody, cpu = Roster(), processors(machine())[0]
        assert not nobody
        assert nobody.read_msr(cpu, KvmMsr.STEAL_TIME) is None
        assert not nobody.write_msr(cpu, KvmMsr.STEAL_TIME, 0)
        assert not (nobody.entering)
        assert not (nobody.scheduled)
        assert not (nobody.tsc_changed)


class TestClock:
    def test_the_stable_bit_goes_with_the_first_tsc_that_differs(self) -> None:
        on, dialect, cpu = kvm()
        for one in cpu:
            dialect.write_msr(one, KvmMsr.SYSTEM_TIME_NEW, AT + 64 * one.index | 1)
        assert on.memory.read(AT + 29, 1) == on.memory.read(AT + 64 + 29, 1) == b"\x01"
        cpu[1].offset = 1 << 40
        assert dialect.hooks.tsc_changed is not None
        dialect.hooks.tsc_changed(cpu[1])
        assert on.memory.read(AT + 29, 1) == on.memory.read(AT + 64 + 29, 1) == b"\x00"
        assert unpack_from("<Q", on.memory.read(AT + 64, 32), 8)[0] == 1 << 40
        cpu[1].offset = 0
        dialect.hooks.tsc_changed(cpu[1])
        assert on.memory.read(AT + 29, 1) == on.memory.read(AT + 64 + 29, 1) == b"\x01"

    def test_without_the_stable_bit_only_the_one_page_is_written(self) -> None:
        on, dialect, cpu = kvm("-clocksource_stable_bit")
        dialect.write_msr(cpu[0], KvmMsr.SYSTEM_TIME_NEW, AT | 1)
        assert on.memory.read(AT + 29, 1) == b"\x00"


class TestStealTime:
    def test_waiting_is_stolen(self) -> None:
        on, dialect, cpu = kvm()
        hooks = dialect.hooks
        assert hooks.scheduled is not None
        assert hooks.descheduled is not None
        assert dialect.write_msr(cpu[0], KvmMsr.STEAL_TIME, AT | 1)
        hooks.descheduled(cpu[0])
        assert on.memory.read(AT + 16, 1) == b"\x01"
        on.clock.now, cpu[0].runnable_since = 3_500, 1_000
        hooks.scheduled(cpu[0])
        assert unpack_from("<Q", on.memory.read(AT, 8))[0] == 1_000  # 2500 cycles at 2.5 GHz
        assert on.memory.read(AT + 16, 1) == b"\x00"
        assert unpack_from("<I", on.memory.read(AT + 8, 4))[0] % 2 == 0

    @pytest.mark.parametrize(("changes", "flushed"), [((), ["flush"]), (("-pv_tlb_flush",), [])])
    def test_a_flush_is_left_in_the_page(
        self, changes: tuple[str, ...], flushed: list[str]
    ) -> None:
        on, dialect, cpu = kvm(*changes)
        hooks = dialect.hooks
        assert hooks.scheduled is not None
        dialect.write_msr(cpu[0], KvmMsr.STEAL_TIME, AT | 1)
        on.memory.write(AT + 16, b"\x03")
        hooks.scheduled(cpu[0])
        assert cpu[0].did == flushed
        assert on.memory.read(AT + 16, 1) == b"\x00"


class TestEoi:
    def armed(self) -> tuple[Machine, Kvm, FakeProcessor]:
        on, dialect, cpu = kvm()
        assert dialect.write_msr(cpu[0], KvmMsr.PV_EOI_EN, AT | 1)
        assert dialect.hooks.entering is not None
        cpu[0].injecting = True
        dialect.hooks.entering(cpu[0])
        assert on.memory.read(AT, 1) == b"\x01"
        return on, dialect, cpu[0]

    def test_the_guest_ends_it_in_memory(self) -> None:
        on, _, cpu = self.armed()
        assert cpu.settle is not None
        cpu.settle(cpu)
        assert cpu.did == []
        on.memory.write(AT, b"\x00")
        cpu.settle(cpu)
        cpu.settle(cpu)
        assert cpu.did == ["eoi"]

    def test_taken_back_when_another_one_is_requested(self) -> None:
        on, dialect, cpu = self.armed()
        cpu.quiet = cpu.injecting = False
        assert dialect.hooks.entering is not None
        dialect.hooks.entering(cpu)
        assert on.memory.read(AT, 1) == b"\x00"
        assert cpu.settle is not None
        cpu.settle(cpu)
        assert cpu.did == []

    def test_not_set_without_an_injection_or_while_others_wait(self) -> None:
        on, dialect, cpu = kvm()
        dialect.write_msr(cpu[0], KvmMsr.PV_EOI_EN, AT | 1)
        assert dialect.hooks.entering is not None
        dialect.hooks.entering(cpu[0])
        cpu[0].injecting, cpu[0].quiet = True, False
        dialect.hooks.entering(cpu[0])
        assert on.memory.read(AT, 1) == b"\x00"

    def test_switching_it_off_takes_the_bit_back(self) -> None:
        on, dialect, cpu = self.armed()
        assert dialect.write_msr(cpu, KvmMsr.PV_EOI_EN, 0)
        assert on.memory.read(AT, 1) == b"\x00"


class TestAsyncPageFaults:
    def ready(self, bits: int = 9) -> tuple[Machine, Kvm, FakeProcessor]:
        on, dialect, cpu = kvm()
        assert dialect.write_msr(cpu[1], KvmMsr.ASYNC_PF_INT, 0xF3)
        assert dialect.write_msr(cpu[1], KvmMsr.ASYNC_PF_EN, AT | bits)
        cpu[1].level = 3
        return on, dialect, cpu[1]

    def absent(self, dialect: Kvm, cpu: FakeProcessor, page: int) -> bool:
        assert dialect.hooks.page_absent is not None
        return dialect.hooks.page_absent(cpu, page)

    def back(self, dialect: Kvm, page: int) -> None:
        assert dialect.hooks.page_ready is not None
        dialect.hooks.page_ready(page)

    def token(self, on: Machine) -> int:
        return int.from_bytes(on.memory.read(AT + 4, 4), "little")

    def test_one_ready_at_a_time(self) -> None:
        on, dialect, cpu = self.ready()
        assert self.absent(dialect, cpu, 0x5000)
        assert on.memory.read(AT, 4) == b"\x01\0\0\0"
        assert self.absent(dialect, cpu, 0x6000)
        assert not self.absent(dialect, cpu, 0x6000), "it was told already"
        first, second = (did[1] for did in cpu.did if isinstance(did, tuple))
        assert first != second
        self.back(dialect, 0x6000)
        self.back(dialect, 0x5000)
        assert self.token(on) == second
        assert cpu.did[2:] == [(0, 0xF3)]
        dialect.write_msr(cpu, KvmMsr.ASYNC_PF_ACK, 1)
        assert self.token(on) == second, "the guest has not taken it"
        on.memory.write(AT + 4, bytes(4))
        dialect.write_msr(cpu, KvmMsr.ASYNC_PF_ACK, 1)
        assert self.token(on) == first
        assert cpu.did[2:] == [(0, 0xF3)] * 2

    def test_only_where_the_guest_can_do_something_else(self) -> None:
        _, dialect, cpu = self.ready()
        cpu.masked = True
        assert not self.absent(dialect, cpu, 0x5000)
        cpu.masked, cpu.level = False, 0
        assert not self.absent(dialect, cpu, 0x5000)
        assert dialect.write_msr(cpu, KvmMsr.ASYNC_PF_EN, AT | 11)  # also in ring 0
        assert self.absent(dialect, cpu, 0x5000)

    def test_enabled_again_everyone_is_woken(self) -> None:
        on, dialect, cpu = self.ready()
        assert self.absent(dialect, cpu, 0x5000)
        assert dialect.write_msr(cpu, KvmMsr.ASYNC_PF_EN, 0)
        assert self.token(on) == 0
        assert dialect.write_msr(cpu, KvmMsr.ASYNC_PF_EN, AT | 9)
        assert self.token(on) == 0, "there was nobody left"
        assert self.absent(dialect, cpu, 0x5000)
        assert dialect.write_msr(cpu, KvmMsr.ASYNC_PF_EN, AT | 9)
        assert self.token(on) == 0xFFFF_FFFF
        self.back(dialect, 0x5000)
        assert self.token(on) == 0xFFFF_FFFF

    def test_a_local_apic_that_is_off_keeps_it_waiting(self) -> None:
        on, dialect, cpu = self.ready()
        assert self.absent(dialect, cpu, 0x5000)
        cpu.deaf = True
        self.back(dialect, 0x5000)
        assert self.token(on) == 0
        cpu.deaf = False
        dialect.write_msr(cpu, KvmMsr.ASYNC_PF_ACK, 1)
        assert self.token(on) != 0


class TestCalls:
    def test_a_set_of_processors(self) -> None:
        _, dialect, cpu = kvm(cpus=4)
        sent = call(Call.SEND_IPI, 0b1011, 0, 1, 0x55)  # identifiers 1, 2 and 4, which is nobody
        assert dialect.hypercall(cpu[0], sent) == 2
        assert [one.did for one in cpu] == [[], [(0, 0x55)], [(0, 0x55)], []]

    @pytest.mark.parametrize(("wide", "first"), [(True, -64), (False, -32)])
    def test_the_second_word_follows_the_first(self, wide: bool, first: int) -> None:
        _, dialect, cpu = kvm(cpus=4)
        low = first & (1 << 64 if wide else 1 << 32) - 1
        assert dialect.hypercall(cpu[0], call(Call.SEND_IPI, 0, 1, low, 0x55, wide=wide)) == 0
        assert dialect.hypercall(cpu[0], call(Call.SEND_IPI, 0, 0b1000, 0, 0x55, wide=wide)) == 0

    def test_nmi_by_its_delivery_mode(self) -> None:
        _, dialect, cpu = kvm()
        assert dialect.hypercall(cpu[0], call(Call.SEND_IPI, 2, 0, 0, 0x400)) == 1
        assert cpu[1].did == [(4, 0)]

    def test_a_kick_wakes_and_gives_way(self) -> None:
        _, dialect, cpu = kvm()
        assert dialect.hypercall(cpu[0], call(Call.KICK_CPU, 0, 1)) == 0
        assert (cpu[0].did, cpu[1].did) == ([("yield", 1)], ["kick"])

    def test_clock_pairing(self) -> None:
        on, dialect, cpu = kvm()
        on.clock.now, cpu[0].offset = 5_000_000_000, 77
        assert dialect.hypercall(cpu[0], call(Call.CLOCK_PAIRING, AT, 0)) == 0
        assert unpack_from("<qqQI", on.memory.read(AT, 64)) == (EPOCH + 2, 0, 5_000_000_077, 0)

    def test_ring_3_may_not(self) -> None:
        _, dialect, cpu = kvm()
        cpu[0].level = 3
        assert dialect.refusal(cpu[0]) == -Error.PERM
        assert Roster((dialect,)).hypercall(cpu[0], call(Call.KICK_CPU, 0, 1)) == -Error.PERM
        assert cpu[1].did == []


def wild(chance: random.Random) -> int:
    """A number as a hostile guest writes it: anything, an address, an edge of memory, few bits."""
    near = chance.choice(
        (0, 0x1000, 0xFFF0, 0x10000, 1 << 20, (1 << 20) + 0x10000, 1 << 46, 1 << 63)
    )
    return chance.choice(
        (
            chance.getrandbits(64),
            near + chance.randrange(-64, 64) & (1 << 64) - 1,
            1 << chance.randrange(64),
            chance.randrange(0x20000) | chance.getrandbits(4),
        )
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_garbage_never_raises_and_writes_only_where_it_was_asked(seed: int) -> None:
    """Registers, calls, hooks and shared pages at random; the state survives a round trip."""
    chance = random.Random(seed)
    on, dialect, cpu = kvm()
    hooks, msrs = dialect.hooks, sorted(dialect.msrs())
    assert hooks.entering
    assert hooks.scheduled
    assert hooks.descheduled
    assert hooks.tsc_changed
    assert hooks.page_absent
    assert hooks.page_ready
    for step in range(FUZZED):
        one = chance.choice(cpu)
        one.masked, one.quiet, one.injecting = (chance.random() < 0.5 for _ in range(3))
        one.level, one.deaf = chance.choice((0, 3)), chance.random() < 0.1
        one.did.clear()
        match chance.randrange(10):
            case 0 | 1 | 2:
                dialect.write_msr(one, chance.choice(msrs), wild(chance))
            case 3:
                assert dialect.read_msr(one, chance.choice(msrs)) is not None
            case 4 | 5:
                number = chance.choice((*Call, wild(chance)))
                values = [wild(chance) for _ in range(6)]
                assert isinstance(dialect.hypercall(one, call(number, *values)), int)
            case 6:
                chance.choice((hooks.entering, hooks.scheduled, hooks.descheduled))(one)
            case 7:
                one.offset = wild(chance)
                hooks.tsc_changed(one)
            case 8:
                hooks.page_absent(one, wild(chance) & ~0xFFF)
                hooks.page_ready(wild(chance) & ~0xFFF)
            case _:
                on.memory.write(chance.randrange(0x10000 - 8), chance.randbytes(8))
                on.clock.now += chance.randrange(10_000)
        if step % 1000 == 0:
            saved = dialect.save()
            dialect.restore(saved)
            assert dialect.save() == saved


def test_reset_forgets_one_processor() -> None:
    _, dialect, cpu = kvm()
    fresh = dialect.save()
    for msr in sorted(dialect.msrs() - {KvmMsr.WALL_CLOCK, KvmMsr.WALL_CLOCK_NEW}):
        value = 0 if msr == KvmMsr.POLL_CONTROL else 8 if msr == KvmMsr.ASYNC_PF_EN else AT
        dialect.write_msr(cpu[1], msr, value if msr != KvmMsr.ASYNC_PF_INT else 0x40)
    assert dialect.save() != fresh
    dialect.reset(1)
    assert dialect.save() == fresh
