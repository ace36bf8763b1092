"""The referee of Xen's ABI: each rule is broken by a guest, and reported with its address."""

from pathlib import Path

import pytest

from hwmodel.cpu.unicorn import ffi
from vmm import VM
from vmm.pv.xen.referee import RULES, Notebook, Rule, breach_line, summary

GUEST = "xen_breaches.elf"
WANTED = [
    Rule.PIN, Rule.ENTRY, Rule.ROOT, Rule.UNPIN, Rule.SEGMENTS, Rule.POINTER, Rule.FRAME,
    Rule.ENTRY, Rule.TABLE_STORE, Rule.LOST_EVENT, Rule.STALE_GRANT, Rule.BAD_GRANT,
]  # fmt: skip


def test_every_rule_of_the_engine_has_its_text_and_source() -> None:
    names = ffi.typeof("enum xen_rule").elements
    assert {n: name.removeprefix("XEN_RULE_") for n, name in names.items() if n} == {
        rule.number: rule.name for rule in Rule
    }
    assert all(rule.text and ("public/" in rule.source or "/" in rule.source) for rule in Rule)


@pytest.fixture(scope="module")
def broken(images: Path) -> VM:
    vm = VM(images / GUEST, technique="pv", memory="16M", max_instructions=20_000_000)
    assert vm.run().reason == "poweroff"
    return vm


def test_each_breach_is_reported_once_in_order(broken: VM) -> None:
    assert broken.domain is not None
    found = broken.domain.engine.breaches()
    assert [RULES[breach.rule] for breach in found] == WANTED
    assert all(breach.rip for breach in found)
    assert [b.cycles for b in found] == sorted(b.cycles for b in found)


def test_addresses_and_values_name_what_was_touched(broken: VM) -> None:
    domain = broken.domain
    assert domain is not None
    found = {RULES[b.rule]: b for b in reversed(domain.engine.breaches())}
    port = domain.engine.vcpu_info(0) & -4096  # the shared page
    assert found[Rule.LOST_EVENT].address == port + 2048
    assert found[Rule.LOST_EVENT].value in domain.ports.channels
    assert found[Rule.POINTER].address == 0xFFFF_8000_0000_1000
    assert found[Rule.FRAME].value & 0x3000 == 0x3000
    assert found[Rule.STALE_GRANT].value == 8
    assert found[Rule.BAD_GRANT].value == 9
    assert found[Rule.BAD_GRANT].address - found[Rule.STALE_GRANT].address == 8
    assert found[Rule.PIN].address == found[Rule.ROOT].address == found[Rule.UNPIN].address
    assert found[Rule.TABLE_STORE].value & -4096 == found[Rule.SEGMENTS].address


def test_a_summary_has_rule_address_and_source(broken: VM) -> None:
    assert broken.domain is not None
    engine = broken.domain.engine
    lines = summary(engine.breaches(), engine.breach_count())
    assert lines[0] == "the guest broke rules of Xen's ABI 12 times"
    first = engine.breaches()[0]
    assert lines[1] == f"1 x {breach_line(first)}"
    assert hex(first.address) in lines[1]
    assert Rule.PIN.source in lines[2]
    assert summary([], 0) == []


def test_a_notebook_keeps_the_newest() -> None:
    book = Notebook(lambda: (0x1000, 5))
    for number in range(300):
        book.report(Rule.BAD_GRANT, number, number)
    assert (book.breach_count(), len(book.breaches())) == (300, 256)
    assert book.breaches()[-1].address == 299
    assert "300 times, of which the newest 256 are known" in summary(book.breaches(), 300)[0]


def test_guests_that_do_no_wrong_are_not_accused(images: Path) -> None:
    for name in ("xen_set_timer_op", "xen_stack_switch", "xen_batch", "xen_poll"):
        with VM(
            images / f"{name}.elf", technique="pv", memory="16M", cpus=4,
            max_instructions=20_000_000,
        ) as vm:  # fmt: skip
            vm.run()
            assert vm.domain is not None
            assert not vm.domain.engine.breaches(), name
