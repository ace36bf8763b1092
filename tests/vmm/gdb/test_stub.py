"""The commands, over a VM that stands still: what is answered, and that reading changes nothing."""

import random
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.vmm.gdb.fuzz import RESUMING, WORDS, payload
from vmm import VM
from vmm.debug.session import Session
from vmm.debug.target import Target
from vmm.gdb.orders import Continue, Leave, Step, StepRange
from vmm.gdb.packets import PACKET_SIZE
from vmm.gdb.registers import ALL, BY_NAME, IN_G
from vmm.gdb.stub import Stub

CODE = bytes.fromhex("48ffc0 48ffc3 0fa2 ebf6")  # 1: inc rax; inc rbx; cpuid; jmp 1b
NUMBER = {register.name: n for n, register in enumerate(ALL)}


def halting(images: Path, exits: int = 40) -> VM:
    """A kernel in long mode, in the middle of its run."""
    vm = VM(images / "hello.elf", memory="4M", cpus=2)
    for count, _ in enumerate(vm, 1):
        if count == exits:
            break
    return vm


@pytest.fixture
def stub(images: Path) -> Iterator[Stub]:
    with VM(images / "hello.elf", memory="4M", cpus=2) as vm:
        session = Session(vm)
        for _ in range(60):
            session.next_exit()
        yield Stub(Target(session))


def ask(stub: Stub, text: str | bytes) -> bytes:
    answer = stub.handle(text.encode() if isinstance(text, str) else text)
    assert isinstance(answer, bytes)
    return answer


def monitor(stub: Stub, line: str) -> str:
    answer = ask(stub, "qRcmd," + line.encode().hex())
    return "" if answer == b"OK" else bytes.fromhex(answer.decode()).decode()


def test_the_first_packets_of_gdb_13(stub: Stub) -> None:
    offered = ask(
        stub, "qSupported:multiprocess+;swbreak+;hwbreak+;qRelocInsn+;fork-events+;vfork-events+;"
        "exec-events+;vContSupported+;QThreadEvents+;no-resumed+;memory-tagging+;xmlRegisters=i386",
    ).split(b";")  # fmt: skip
    assert b"PacketSize=%x" % PACKET_SIZE in offered
    for feature in (
        "qXfer:features:read", "qXfer:memory-map:read", "qXfer:threads:read", "QStartNoAckMode",
        "multiprocess", "swbreak", "hwbreak", "vContSupported", "ConditionalBreakpoints",
        "ReverseStep", "ReverseContinue",
    ):  # fmt: skip
        assert feature.encode() + b"+" in offered
    assert ask(stub, "vMustReplyEmpty") == b""
    assert ask(stub, "QStartNoAckMode") == b"OK"
    assert stub.is_reliable
    assert ask(stub, "Hgp0.0") == b"OK"
    assert ask(stub, "qTStatus") == b""
    assert ask(stub, "?").startswith(b"T05")
    assert b"thread:p1.1;" in ask(stub, "?")
    assert ask(stub, "qfThreadInfo") == b"mp1.1,p1.2"
    assert ask(stub, "qsThreadInfo") == b"l"
    assert ask(stub, "qAttached:1") == b"1"
    assert ask(stub, "Hc-1") == b"OK"
    assert ask(stub, "qC") == b"QCp1.1"
    assert ask(stub, "vCont?") == b"vCont;c;C;s;S;t;r"
    assert len(ask(stub, "g")) == 2 * sum(register.size for register in IN_G)


@pytest.mark.parametrize("word", ["vRun;", "QPassSignals:e", "qFoo", "!", "R00", "QTinit", "i"])
def test_what_is_not_known_is_answered_with_nothing(stub: Stub, word: str) -> None:
    assert ask(stub, word) == b""


@pytest.mark.parametrize(
    "word",
    ["p", "pzz", "p-1", "pffff", "P0", "P0=zz", "P0=00", "m", "m0", "mzz,1", "m0,-1", "M0,2:00",
     "M0,1:0", "X0,2:a", "Z0", "Z7,0,1", "Z0,x,1", "Z0,0,1;X9,22", "z0", "Hg", "Hgzz", "Hgp2.1",
     "Hg9", "T9", "T", "Gzz", "G00", "qXfer:features:read:target.xml:zz", "qSearch:memory:0",
     "Qqemu.PhyMemMode:2", "Qqemu.sstep=99", "vCont;x", "vCont;r1", "qThreadExtraInfo,9",
     "qXfer:threads:read::-1,5", "qRcmd,0"],
)  # fmt: skip
def test_what_cannot_be_done_is_an_error(stub: Stub, word: str) -> None:
    assert ask(stub, word).startswith(b"E")


def test_the_description_is_whole_and_agrees_with_the_table(stub: Stub) -> None:
    text, at = b"", 0
    while True:
        piece = ask(stub, f"qXfer:features:read:target.xml:{at:x},{0xFFB:x}")
        text, at = text + piece[1:], at + len(piece) - 1
        if piece[:1] == b"l":
            break
        assert piece[:1] == b"m"
    target = ET.fromstring(text)
    assert target.findtext("architecture") == "i386:x86-64"
    registers = list(target.iter("reg"))
    assert [int(reg.attrib["regnum"]) for reg in registers] == list(range(len(ALL)))
    assert [reg.attrib["name"] for reg in registers] == [register.name for register in ALL]
    features = [feature.attrib["name"] for feature in target.iter("feature")]
    assert features == [
        "org.gnu.gdb.i386.core", "org.gnu.gdb.i386.sse", "org.gnu.gdb.i386.segments",
        "org.ring1.system", "org.ring1.vmx",
    ]  # fmt: skip
    types = {one.attrib["id"] for kind in ("flags", "struct", "union", "vector")
             for one in target.iter(kind)}  # fmt: skip
    builtin = {"int", "int32", "int64", "uint32", "uint64", "data_ptr", "code_ptr", "i387_ext"}
    assert {reg.attrib["type"] for reg in registers} <= types | builtin
    first = (
        "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip eflags cs ss ds es fs gs"
    )
    assert [register.name for register in ALL[:24]] == first.split()


def test_the_memory_map_has_ram_and_rom_and_no_device(stub: Stub) -> None:
    answer = ask(stub, "qXfer:memory-map:read::0,1000")
    regions = [
        (int(r.attrib["start"], 16), int(r.attrib["length"], 16), r.attrib["type"])
        for r in ET.fromstring(answer[1:]).iter("memory")
    ]
    low, rom, ram, high = sorted(regions)
    assert low == (0, 0xE_0000, "ram")
    assert rom == (0xE_0000, 0x2_0000, "rom")
    assert ram == (0x10_0000, 0x30_0000, "ram")
    assert high == (1 << 32, (1 << 64) - (1 << 32), "ram")
    for device in (0xFEC0_0000, 0xFEE0_0000, 0xE000_0000):
        assert not any(start <= device < start + size for start, size, _ in regions)


def test_every_register_can_be_read_and_most_written(stub: Stub) -> None:
    for number, register in enumerate(ALL):
        value = ask(stub, f"p{number:x}")
        assert len(value) == 2 * register.size, register.name
        if register.write is None:
            assert ask(stub, f"P{number:x}={value.decode()}").startswith(b"E."), register.name
        else:
            assert ask(stub, f"P{number:x}={value.decode()}") == b"OK", register.name
            assert ask(stub, f"p{number:x}") == value, register.name


@pytest.mark.parametrize("name", ["rax", "r15", "rsp", "st0", "st7", "xmm0", "xmm15", "dr0", "cr2",
                                  "kernel_gs_base", "fs_base"])  # fmt: skip
def test_a_written_register_is_read_back(stub: Stub, name: str) -> None:
    size = BY_NAME[name].size
    value = bytes(range(1, size + 1))
    if name == "fs_base":
        value = b"\0\x10\x20\0\0\0\0\0"  # canonical
    assert ask(stub, f"P{NUMBER[name]:x}={value.hex()}") == b"OK"
    assert ask(stub, f"p{NUMBER[name]:x}") == value.hex().encode()
    others = [ask(stub, f"p{n:x}") for n in range(len(IN_G)) if ALL[n].name != name]
    whole = ask(stub, "g")
    assert len(others) == len(IN_G) - (name in {r.name for r in IN_G})
    assert ask(stub, b"G" + whole) == b"OK"
    assert ask(stub, "g") == whole


def test_what_no_processor_can_be_entered_with_is_refused(stub: Stub) -> None:
    before = stub.target.vm.digest()
    for name, value in (("cr0", 1 << 31), ("cr4", 1 << 63), ("rip", 1 << 50), ("efer", 1 << 40),
                        ("cs_rights", 0), ("tr_limit", 0xFFFF_FFFF)):  # fmt: skip
        number, size = NUMBER[name], BY_NAME[name].size
        packet = f"P{number:x}={value.to_bytes(size, 'little').hex()}"
        assert ask(stub, packet).startswith(b"E.no VM entry"), name
    assert stub.target.vm.digest() == before


def test_memory_is_read_and_written_in_each_way(stub: Stub) -> None:
    data = bytes(range(64)) + b"#$}*"
    at = 0x20_0000
    assert ask(stub, f"M{at:x},{len(data):x}:{data.hex()}") == b"OK"
    assert ask(stub, f"m{at:x},{len(data):x}") == data.hex().encode()
    assert ask(stub, f"x{at:x},{len(data):x}") == b"b" + data
    assert ask(stub, b"X%x,%x:" % (at + 4096, len(data)) + data) == b"OK"
    assert stub.target.vm.memory.read(at + 4096, len(data)) == data
    assert ask(stub, b"X%x,0:" % at) == b"OK"
    assert ask(stub, b"qSearch:memory:%x;2000;" % at + b"#$}*") == b"1,%x" % (at + 64)
    assert ask(stub, b"qSearch:memory:%x;1000;nothing of that" % at) == b"0"


def test_memory_that_is_not_there(stub: Stub) -> None:
    assert ask(stub, "m8000000000000000,8") == b"E0e"  # not canonical
    assert ask(stub, "mffff800000000000,8") == b"E0e"  # not mapped
    assert ask(stub, "mfee00000,8") == b"E0e"  # a device
    edge = ask(stub, "m3ffff0,20")  # the end of RAM: what there is of it
    assert len(edge) == 32
    assert ask(stub, b"X3ffff0,20:" + bytes(32)).startswith(b"E.")
    assert ask(stub, "m3ffff0,10") == edge


def test_reading_changes_nothing(stub: Stub) -> None:
    """The state's digest, the clock, the counts and the modelled TLB are as before."""
    vm = stub.target.vm

    def state() -> object:
        counts = vm.pcpu.counters()
        counts["tlb_flushes"] = (
            0  # of Unicorn's own cache: looking at another vCPU's FPU empties it
        )
        return vm.digest(), vm.clock.now, counts, vm.pcpu.mmu_counters(), stub.target.session.now

    before = state()
    reading = [word for word in WORDS if word[:1] not in (b"G", b"P", b"M", b"X")]
    for word in [
        *reading,
        b"m100000,1000",
        b"xfffffffffffff000,1000",
        b"qSearch:memory:0;400000;~",
    ]:
        ask(stub, word)
    for number in range(len(ALL)):
        ask(stub, f"p{number:x}")
    for line in ("when", "vmcs", "vmcs diff", "walk 0x100000", "tlb", "explain entry", "sched",
                 "explain last", "explain hang", "hypercalls", "stats", "time", "freq",
                 "backtrace", "where", "where test_main", "exit", "exit-break list", "help",
                 "phys", "checkpoint list", "explain exit", "explain walk 0x100000", "exits",
                 "explain walk gpa:0x100000 write", "explain hang 100000", "regs", "ledger",
                 "disas", "x $rip 4", "xp 0x100000 4", "console", "fields", "checkpoints",
                 "digest"):  # fmt: skip
        assert monitor(stub, line) or line in ("vmcs diff", "exit-break list"), line
    assert state() == before


def test_physical_addresses(stub: Stub) -> None:
    assert monitor(stub, "phys on") == "addresses are guest-physical\n"
    assert ask(stub, "qqemu.PhyMemMode") == b"1"
    assert ask(stub, "mfee00000,4") == b"E0e"
    assert ask(stub, "m100000,4") == stub.target.vm.memory.read(0x100000, 4).hex().encode()
    assert ask(stub, "Qqemu.PhyMemMode:0") == b"OK"
    assert not stub.target.physical


def test_resuming_packets_are_orders(stub: Stub) -> None:
    orders = {
        "c": Continue(), "C05": Continue(), "vCont;c": Continue(), "vCont;C05:p1.-1": Continue(),
        "s": Step(0), "vCont;s:1": Step(0), "vCont;s:p1.2;c:p1.-1": Step(1), "vCont;S05:2": Step(1),
        "vCont;r1000,2000:1;c": StepRange(0, 0x1000, 0x2000), "bc": Continue(back=True),
        "bs": Step(0, back=True), "D": Leave(), "D;1": Leave(), "k": Leave(kills=True),
        "vKill;1": Leave(kills=True),
    }  # fmt: skip
    assert {text: stub.handle(text.encode()) for text in orders} == orders
    ask(stub, "Hg2")
    assert stub.handle(b"s") == Step(1)


def test_the_past_is_not_changed_by_accident(stub: Stub) -> None:
    session = stub.target.session
    session.reverse_step(5)
    rax = ask(stub, "p0")
    for packet in (f"P0={rax.decode()}", "M200000,1:ff", b"X200000,1:a"):
        answer = ask(stub, packet)
        assert answer.startswith(b"E.")
        assert b"history fork" in answer
    assert ask(stub, b"G" + ask(stub, "g")) == b"OK"  # which changes nothing
    assert "forgotten" in monitor(stub, "history fork")
    assert ask(stub, "M200000,1:ff") == b"OK"
    assert ask(stub, "m200000,1") == b"ff"


def test_breakpoints_are_nowhere_in_memory(stub: Stub) -> None:
    pc = stub.target.session.vcpu.linear_rip()
    before = ask(stub, f"m{pc:x},20")
    for kind in range(5):
        assert ask(stub, f"Z{kind},{pc:x},1") == b"OK"
    assert ask(stub, f"m{pc:x},20") == before
    assert len(list(stub.target.session.stops)) == 5
    assert ask(stub, f"Z0,{pc:x},1;X3,220127") == b"OK"  # again: the conditions are exchanged
    assert len(list(stub.target.session.stops)) == 5
    for kind in range(5):
        assert ask(stub, f"z{kind},{pc:x},1") == b"OK"
        assert ask(stub, f"z{kind},{pc:x},1") == b"OK"
    assert not list(stub.target.session.stops)


def test_a_thousand_breakpoints_are_no_matter(stub: Stub) -> None:
    for number in range(1000):
        assert ask(stub, f"Z1,{0x200000 + number:x},1") == b"OK"
        assert ask(stub, f"Z2,{0x210000 + 8 * number:x},8") == b"OK"
    assert len(list(stub.target.session.stops)) == 2000


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "not known"), ("exit-brake list", "did you mean exit-break?"),
        ("exit-break add reason=NOTHING", "column"), ("exit-break del 99", "no breakpoint 99"),
        ("goto", "usage"), ("goto moon 1", "usage"), ("walk no_such_symbol", "neither"),
        ("vmcs NOSUCHFIELD", "no VMCS field"), ("mmio read 0xfee00000 3", "1, 2, 4 or 8"),
        ("phys maybe", "usage"), ("changed NOSUCHFIELD", "no such VMCS field"),
        ("explain weather", "explain entry | exit"), ("explain walk 0 sideways", "choose one of"),
        ("exits reason=", "column"), ("disas 0xdead0000beef", "nothing is mapped"),
        ("history", "usage"), ("", "exit-break"),
    ],
)  # fmt: skip
def test_monitor_says_what_is_wrong(stub: Stub, line: str, said: str) -> None:
    assert said in monitor(stub, line)


def test_monitor_help_names_each_verb_and_every_usage_is_one_of_a_verb(stub: Stub) -> None:
    from vmm.gdb.monitor import VERBS

    lines = monitor(stub, "help").splitlines()
    assert [line.split()[0] for line in lines] == list(VERBS)
    assert monitor(stub, "help when").startswith("when")


def test_monitor_can_be_switched_off(images: Path) -> None:
    with VM(images / "hello.elf", memory="4M") as vm:
        stub = Stub(Target(Session(vm)), has_monitor=False)
        assert ask(stub, "qRcmd,68656c70") == b""


def test_mmio_is_read_on_purpose(stub: Stub) -> None:
    assert monitor(stub, "mmio read 0xfee00030").startswith("0xfee00030: 0x")


def fuzz_stub(count: int, seed: int, images: Path | None = None) -> int:
    """Give random packets to a stub; return how many it understood."""
    chance, understood = random.Random(seed), 0
    image: Path | bytes = images / "hello.elf" if images else CODE
    with VM(image, memory="1M" if images is None else "4M", cpus=2) as vm:
        session = Session(vm)
        session.step(3)
        stub = Stub(Target(session))
        for number in range(count):
            packet = payload(chance)
            if packet.startswith(RESUMING):
                continue
            answer = stub.handle(packet)
            assert isinstance(answer, bytes), packet
            understood += answer not in (b"", b"E16")
            if number % 1000 == 999:
                stub.points.clear()
                session.step()
    return understood


def test_a_sample_of_the_fuzz(images: Path) -> None:
    assert fuzz_stub(3000, 2, images) > 300


def test_what_was_written_is_still_there_after_going_back_and_on(images: Path) -> None:
    """A run from the past comes by the change again; twice changed, one after the other."""
    with VM(images / "hello.elf", memory="4M") as vm:
        session = Session(vm, interval=1000)
        stub, ends = Stub(Target(session)), []
        for number in (1, 2):
            session.step(5000)
            assert ask(stub, f"M20000{number:x},1:4{number}") == b"OK"
            assert ask(stub, f"P{NUMBER['r15']:x}=0{number}00000000000000") == b"OK"
            ends.append((session.now, vm.digest()))
        session.step(3000)
        last = session.now, vm.digest()
        for back in (1, 2999, 3000, 3001, 6000, 8000, 8001, 12000):
            session.reverse_step(back)
            session.goto(last[0])
            assert vm.digest() == last[1], back
        for moment, digest in reversed(ends):
            session.goto(moment)
            assert vm.digest() == digest
        session.goto_step(4999)
        assert ask(stub, "m200001,2") == b"0000"
        session.step()
        assert ask(stub, "m200001,2") == b"4100"
        session.step(5000)
        assert ask(stub, "m200001,2") == b"4142"
        session.reverse_resume()
        assert ask(stub, "m200001,2") == b"0000"
