"""The server at its socket: clients that are half, wrong, dead, two; and a guest that goes on."""

import re
import time
from pathlib import Path

import pytest

from tests.vmm.gdb.client import Client, served
from vmm import VM
from vmm.errors import UsageError
from vmm.gdb.packets import Signal, frame
from vmm.gdb.registers import ALL
from vmm.host.endpoint import Endpoint
from vmm.host.stream import Stream

NUMBER = {register.name: n for n, register in enumerate(ALL)}
SPIN = bytes.fromhex("66 40 eb fc")  # real mode: inc eax; jmp back
WRITES = bytes.fromhex(
    "31 c0 8e d8"  # xor ax,ax; mov ds,ax
    "b9 10 00"  # mov cx,16
    "c7 06 00 06 34 12"  # 7c07: mov word [0x600],0x1234
    "41"  # inc cx
    "89 0e 02 06"  # 7c0e: mov [0x602],cx
    "8b 1e 00 06"  # 7c12: mov bx,[0x600]
    "c7 06 00 06 ef be"  # 7c16: mov word [0x600],0xbeef
    "b0 01 e6 f4"  # 7c1c: mov al,1; out 0xf4,al
    "eb fe"
)


def hello(client: Client) -> None:
    client.ask("qSupported:multiprocess+;swbreak+;hwbreak+")


def test_a_conversation_to_the_end(images: Path) -> None:
    with served(images / "hello.elf") as one:
        client = one.client()
        hello(client)
        assert client.ask("?").startswith(b"T05")
        stop = client.ask("vCont;c")
        assert b"replaylog:end;" in stop
        assert "the run has ended: poweroff" in client.console
        assert "#0" in client.console  # with the call chain
        assert client.ask("bs").startswith(b"T05")  # and back from there
        assert b"replaylog:end;" in client.ask("vCont;c")
        assert client.ask("vCont;c") == b"W00;process:1"
        result = one.join()
    assert (result.status, result.reason) == (0, "poweroff")


def test_the_run_is_the_same_with_a_debugger(images: Path) -> None:
    with VM(images / "exceptions.elf", memory="4M") as vm:
        plain = vm.run()
        wanted = plain.instructions, plain.cycles, plain.exits, vm.digest()
    with served(images / "exceptions.elf") as one:
        client = one.client()
        hello(client)
        for _ in range(30):
            client.ask("vCont;s:1")
        client.ask("Z2,100000,1000")
        client.monitor("exit-break add reason=CPUID")
        while b"replaylog:end" not in client.ask("vCont;c"):
            pass
        for _ in range(3):
            client.ask("bs")
        client.ask("bc")
        client.ask("D")
        result = one.join()
        assert (result.instructions, result.cycles, result.exits, one.vm.digest()) == wanted


@pytest.mark.parametrize("size", [1, 5])
def test_half_packets(size: int) -> None:
    with served(SPIN, memory="1M") as one:
        client = one.client()
        data = frame(b"qAttached") + frame(b"m7c00,4")
        for at in range(0, len(data), size):
            client.raw(data[at : at + size])
            time.sleep(0.001)
        assert client.answer() == b"1"
        assert client.answer() == b"6640ebfc"


def test_wrong_sums_are_asked_for_again_and_answers_sent_again() -> None:
    with served(SPIN, memory="1M") as one:
        client = one.client()
        client.raw(b"$qAttached#00")
        assert client.item() is Signal.NACK
        assert client.ask("qAttached") == b"1"
        client.raw(b"-")
        assert client.answer() == b"1"
        assert client.ask("QStartNoAckMode") == b"OK"
        client.raw(b"+")
        client.acknowledges = False
        client.raw(b"$qAttached#00")
        assert client.answer().startswith(b"E.garbled")
        client.raw(frame(b"qAttached"))
        assert client.item() is not Signal.ACK


def test_a_guest_that_runs_is_interrupted() -> None:
    with served(SPIN, memory="1M") as one:
        client = one.client()
        hello(client)
        client.raw(frame(b"vCont;c"))
        time.sleep(0.2)
        client.raw(b"\x03")
        first = client.answer()
        assert first.startswith(b"T02")
        count = client.register(0)
        assert count > 1000
        client.raw(frame(b"c"))
        time.sleep(0.1)
        client.raw(b"\x03")
        assert client.answer().startswith(b"T02")
        assert client.register(0) != count


def test_a_client_that_dies_leaves_the_guest_running_and_the_next_one_is_served() -> None:
    with served(SPIN, memory="1M") as one:
        client = one.client()
        hello(client)
        client.ask("Z0,7c00,1")
        client.raw(frame(b"vCont;c") + b"$half")
        client.close()
        second = one.client()
        hello(second)
        assert second.ask("?").startswith(b"T0")
        now = one.session.now
        assert not list(one.session.stops)
        second.raw(frame(b"c"))
        time.sleep(0.2)
        second.raw(b"\x03")
        assert second.answer().startswith(b"T02")
        assert one.session.now > now


def test_a_second_client_is_turned_away_politely() -> None:
    with served(SPIN, memory="1M") as one:
        client = one.client()
        assert client.ask("qAttached") == b"1"
        second = one.client()
        assert second.answer().startswith(b"E.another debugger")
        with pytest.raises((EOFError, ConnectionError)):
            second.answer()
        assert client.ask("qAttached") == b"1"
        client.raw(frame(b"c"))
        third = one.client()
        assert third.answer().startswith(b"E.another debugger")
        client.raw(b"\x03")
        assert client.answer().startswith(b"T02")


def test_a_port_in_use_is_refused_in_one_line() -> None:
    first = Stream.listening(Endpoint("127.0.0.1", 0), "--gdb")
    with pytest.raises(UsageError, match=r"--gdb: .*address already in use; choose another"):
        Stream.listening(first.address, "--gdb")
    first.close()


def test_killing_ends_the_run(images: Path) -> None:
    with served(images / "hello.elf") as one:
        client = one.client()
        client.raw(frame(b"k"))
        assert one.join().reason == "interrupted"
    with served(SPIN, memory="1M") as one:
        assert one.client().ask("vKill;1") == b"OK"
        assert one.join().status == 130


def test_noise_at_the_socket_hurts_nobody() -> None:
    with served(SPIN, memory="1M") as one:
        client = one.client()
        client.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        client.raw(b"$" + bytes(1 << 20) + b"#00")
        assert client.item() is Signal.NACK
        assert client.ask("qAttached") == b"1"


def test_breakpoints_in_real_mode_before_anything_is_set_up() -> None:
    with served(WRITES, memory="1M") as one:
        client = one.client()
        hello(client)
        before = client.ask("m7c00,20")
        assert client.ask("Z0,7c0e,1") == b"OK"
        assert client.ask("m7c00,20") == before
        stop = client.ask("vCont;c")
        assert b"swbreak:;" in stop
        assert client.register(NUMBER["rip"]) == 0x7C0E
        assert client.register(NUMBER["rcx"]) == 17
        assert client.ask("z0,7c0e,1") == b"OK"
        assert b"thread:p1.1" in client.ask("vCont;s:p1.1")
        assert client.register(NUMBER["rip"]) == 0x7C12


def test_breakpoint_tags_only_for_those_who_know_them() -> None:
    with served(WRITES, memory="1M") as one:
        client = one.client()
        client.ask("qSupported:xmlRegisters=i386")
        client.ask("Z1,7c0e,1")
        stop = client.ask("c")
        assert b"break" not in stop
        assert b"thread:1;" in stop


def test_watchpoints_stop_behind_the_access_and_backwards_before_it() -> None:
    with served(WRITES, memory="1M") as one:
        client = one.client()
        hello(client)
        client.ask("Z2,600,2")
        assert b";watch:600;" in client.ask("c")
        assert client.register(NUMBER["rip"]) == 0x7C0D
        assert b";watch:600;" in client.ask("c")
        assert client.register(NUMBER["rip"]) == 0x7C1C
        assert client.ask("m600,2") == b"efbe"
        assert b";watch:600;" in client.ask("bc")
        assert (client.register(NUMBER["rip"]), client.ask("m600,2")) == (0x7C16, b"3412")
        assert b";watch:600;" in client.ask("bc")
        assert (client.register(NUMBER["rip"]), client.ask("m600,2")) == (0x7C07, b"0000")
        assert b"replaylog:begin;" in client.ask("bc")
        assert client.register(NUMBER["rip"]) == 0x7C00
        client.ask("z2,600,2")
        client.ask("Z3,600,2")
        assert b";rwatch:600;" in client.ask("c")
        assert client.register(NUMBER["rip"]) == 0x7C16
        client.ask("z3,600,2")
        client.ask("Z4,602,2")
        assert b";awatch:602;" in client.ask("bc")


def test_a_false_condition_does_not_stop_and_costs_no_answer() -> None:
    """`rax & 0xffff == 1000` at the top of a loop, forwards and backwards."""
    condition = bytes.fromhex("26000023ffff0f2303e81327")
    with served(SPIN, memory="1M") as one:
        client = one.client()
        hello(client)
        text = f"Z0,7c00,1;X{len(condition):x},{condition.hex()}"
        assert client.ask(text) == b"OK"
        assert b"swbreak" in client.ask("c")
        assert client.register(0) == 1000
        client.ask("vCont;s:1")
        client.ask("vCont;s:1")
        assert client.register(0) == 1001
        assert b"swbreak" in client.ask("bc")
        assert client.register(0) == 1000
        never = bytes.fromhex("220027")
        assert client.ask(f"Z0,7c00,1;X{len(never):x},{never.hex()}") == b"OK"
        client.raw(frame(b"c"))
        time.sleep(0.1)
        client.raw(b"\x03")
        assert client.answer().startswith(b"T02")


TICKS = bytes.fromhex(
    "31 c0 8e d8"  # xor ax,ax; mov ds,ax
    "c7 06 20 00 2c 7c c7 06 22 00 00 00"  # mov word [0x20],handler; [0x22],0
    "b0 34 e6 43 b0 ff e6 40 b0 00 e6 40"  # PIT channel 0, mode 2, every 255 ticks
    "b0 08 e6 21"  # nothing masked but line 3: vectors from 8 on, as a PC begins
    "fb"  # sti
    "41"  # 7c21: inc cx
    "41"  # inc cx
    "41 41 41 41 41 41 eb f6"  # six more; jmp 7c21
)
HANDLER = bytes.fromhex("42 50 b0 20 e6 20 58 cf")  # inc dx; push ax; EOI; pop ax; iret


def test_steps_do_not_end_in_interrupt_handlers_unless_asked() -> None:
    code = TICKS.ljust(0x2C, b"\x90") + HANDLER
    rip, low, high = NUMBER["rip"], 0x7C21, 0x7C2B
    with served(code, memory="1M") as one:
        client = one.client()
        hello(client)
        client.ask(f"Z0,{0x7C2C:x},1")
        assert b"swbreak" in client.ask("c"), "no interrupt comes"
        client.ask("bs")
        before, ticks = client.register(rip), client.register(3)
        assert low <= before < high
        step = re.findall(r"step ([0-9,]+),", client.monitor("when"))[0].replace(",", "")
        assert client.ask("qqemu.sstep") == b"0x7"
        client.ask(f"z0,{0x7C2C:x},1")
        client.ask("vCont;s:1")
        assert low <= client.register(rip) < high
        assert client.register(rip) != before
        assert client.register(3) == ticks + 1, "the handler did not run"
        client.monitor(f"goto step {step}")
        client.ask("c")
        assert client.register(rip) == before
        assert client.ask("Qqemu.sstep=1") == b"OK"
        client.ask("vCont;s:1")
        assert client.register(rip) == 0x7C2C


def test_stops_for_exits_have_a_reason_and_no_breakpoint_tag(images: Path) -> None:
    with served(images / "hello.elf") as one:
        client = one.client()
        hello(client)
        assert "exit-break reason=CPUID" in client.monitor("exit-break add reason=CPUID")
        stop = client.ask("c").decode()
        assert ";vmexit:a;exit_reason:CPUID;" in stop
        assert "break:" not in stop
        assert "watch:" not in stop
        assert "CPUID" in client.console
        assert "test_main" in client.console
        assert client.register(NUMBER["exit_reason"]) == 10
        number = client.register(NUMBER["exit_number"])
        assert "continue goes to" in client.monitor("exit prev")
        client.ask("c")
        assert client.register(NUMBER["exit_number"]) == number - 1
        client.monitor("goto cycle 1000")
        client.ask("c")
        assert client.register(NUMBER["cycle"]) == 1000


def test_range_steps_stay_until_the_range_is_left() -> None:
    with served(WRITES, memory="1M") as one:
        client = one.client()
        hello(client)
        client.ask("vCont;r7c00,7c12:p1.1")
        assert client.register(NUMBER["rip"]) == 0x7C12


def test_each_vcpu_is_a_thread(images: Path) -> None:
    with served(images / "smp.elf", cpus=3) as one:
        client = one.client()
        hello(client)
        assert client.ask("qfThreadInfo") == b"mp1.1,p1.2,p1.3"
        xml = client.ask("qXfer:threads:read::0,1000").decode()
        assert 'name="vCPU 2"' in xml
        assert "wait-for-SIPI" in xml
        assert 'core="0"' in xml
        client.ask("Hgp1.2")
        assert client.ask("T2") == b"OK"
        other = bytes.fromhex(client.ask("qThreadExtraInfo,p1.2").decode()).decode()
        assert other.startswith("real, CPL 0")
