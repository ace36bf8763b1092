"""Names of Debian's kernel: the guest's own kallsyms and its own unwinder are the judges."""

import hashlib
import re

import pytest

from tests.linux.guests import Boot, Console
from vmm.symbols.guest import GuestNames


@pytest.mark.parametrize("kaslr", [None, 5])
def test_the_symbols_are_those_that_the_guest_lists(cloud: Boot, kaslr: int | None) -> None:
    listing = r"grep -v '\[' /proc/kallsyms | grep '^f' | cut -d' ' -f1,3 | sha256sum"
    console = Console([(b"ring1# ", f"{listing}; poweroff\n".encode())])
    with cloud.vm(console, kaslr=kaslr) as vm:
        assert vm.run().status == 0
        symbols = GuestNames(vm.config, vm.plan).image
        lines = [f"{s.address + symbols.slide:016x} {s.name}\n" for s in symbols.table.symbols]
    assert len(lines) > 50_000
    assert hashlib.sha256("".join(lines).encode()).hexdigest() in console.text
    assert bool(symbols.slide) == (kaslr is not None)


def test_a_kernel_that_shifted_itself_is_found_out(cloud: Boot) -> None:
    console = Console([(b"ring1# ", b"grep -w _stext /proc/kallsyms; poweroff\n")])
    options = {"kernel_entry": "decompressor", "cmdline": "console=ttyS0 cryptomgr.notests kaslr"}
    with cloud.vm(console, **options) as vm:
        assert vm.run().status == 0
        names = GuestNames(vm.config, vm.plan)
        assert names.image.slide == 0
        symbols = names.settle(vm.current)
    told = re.search(r"^([0-9a-f]{16}) T _stext", console.text, re.MULTILINE)
    assert told
    assert symbols.find("_stext") == int(told[1], 16)


def test_the_call_chain_is_what_the_kernel_prints_of_itself(cloud: Boot) -> None:
    """A crash on purpose: Linux prints its chain; so do we, while it is printing."""
    chain: list[str] = []

    def look() -> None:
        frames = GuestNames(vm.config, vm.plan).backtrace(vm.current)
        chain.extend(frame.place.symbol if frame.place else "?" for frame in frames)
        console.steps.append((b"</TASK>", lambda: vm.interrupt("interrupted")))

    crash = b"echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger\n"
    console = Console([(b"ring1# ", crash), (b"Call Trace:", look)])
    with cloud.vm(console) as vm:
        vm.run()
    printed = console.text.partition("Call Trace:")[2].partition("</TASK>")[0]
    reliable = re.findall(r"^\[[ .0-9]+\]  ([a-zA-Z_]\w+(?:\.\w+)*)\+0x", printed, re.MULTILINE)
    reliable = [name for name in reliable if name not in ("dump_stack_lvl", "dump_stack")]
    assert "sysrq_handle_crash" in reliable
    first = chain.index("panic")
    rest = [name for name in chain[first:] if name != "?"]
    assert rest[: len(reliable)] == reliable, (chain, printed)
