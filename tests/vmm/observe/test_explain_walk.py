"""`explain walk`: every reference, decoded, and nothing of the guest another afterwards."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hwmodel.mem.reference import Access, Exited, Raised, Translated
from tests.hwmodel import test_walk_references as tables
from tests.images import elf64
from tests.twin.walking import Case, Walker
from vmm import VM
from vmm.cli.main import main
from vmm.observe.walk import WalkStory, walk_lines, walk_story

SPIN = "again: mov rax, [0x100000]; mov byte ptr [0x300000], 1; jmp again"


def story_of(entries: Any, levels: tuple[int, int], linear: int, access: Access) -> WalkStory:
    """The story of a walk in tables laid out by hand."""
    walker = Walker()
    walker.put(Case(tuple(entries), tables.circumstances(*levels), linear, access, False))
    vcpu = SimpleNamespace(
        pcpu=walker.pcpu, vmcs=walker.vmcs, regs=walker.vmcs.registers, is_user=lambda: False
    )
    return walk_story(cast("Any", vcpu), linear, access)


@pytest.mark.parametrize(
    ("guest_levels", "guest_depth", "ept_levels", "ept_depth", "references"),
    [(4, 4, 4, 4, 24), (5, 5, 5, 5, 35), (4, 3, 4, 4, 19), (4, 4, 4, 3, 19), (4, 3, 4, 3, 15)],
)
def test_as_many_references_as_published(
    monkeypatch: pytest.MonkeyPatch, guest_levels: int, guest_depth: int, ept_levels: int,
    ept_depth: int, references: int,
) -> None:  # fmt: skip
    """nm + n + m: Bhargava et al. 2008."""
    linear = 0x7F_1200_5678
    monkeypatch.setattr(tables, "LINEAR", linear)
    entries = tables.ept(ept_depth, ept_levels) + tables.guest(guest_depth, guest_levels)
    story = story_of(entries, (guest_levels, ept_levels), linear, Access.READ)
    assert isinstance(story.end, Translated)
    assert len(story.steps) == references
    assert story.guest_references == guest_depth
    lines = list(walk_lines(story))
    assert len(lines) == references + 3
    assert lines[-2].startswith(f"{references} references: {guest_depth} of the guest's tables")
    assert "host-physical 0x5678" in lines[-1]


def test_a_page_fault_is_told_in_words() -> None:
    entries = tables.ept(4, 4) + tables.guest(4, 4, leaf=0x5000 | 5)
    story = story_of(entries, (4, 4), tables.LINEAR, Access.WRITE)
    assert isinstance(story.end, Raised)
    lines = list(walk_lines(story))
    assert lines[-1] == "#PF with error code 0x3: protection, write"
    (last,) = [line for line in lines if line.rstrip().endswith("#PF")]
    assert "Pte(0x5005 present user frame=0x5)" in last


def test_an_ept_violation_shows_its_entry() -> None:
    entries = tables.ept(4, 4, leaf=0x35) + tables.guest(4, 4)
    story = story_of(entries, (4, 4), tables.LINEAR, Access.WRITE)
    assert isinstance(story.end, Exited)
    line = list(walk_lines(story))[-1]
    assert line.startswith("VM exit EPT_VIOLATION about guest-physical ")
    assert "write" in line


def test_reading_changes_nothing(images: Path) -> None:
    """The digest, what the MMU counted, the clock, and every exit that comes afterwards."""
    with VM(images / "paging.elf", memory="64M") as vm:
        for vmexit in vm:
            if vmexit.sequence == 200:
                break
        vcpu = vm.current
        before = vm.digest(), vm.pcpu.mmu_counters(), vm.clock.now
        ledger = vm.ledger.as_dict()
        for address in (vm.regs.rip, 0, 0x20_0000, 1 << 46, (1 << 63) + 1, 0xFEE0_0000):
            for access in Access:
                list(walk_lines(walk_story(vcpu, address, access)))
                list(walk_lines(walk_story(vcpu, address, access, user=True)))
                list(walk_lines(walk_story(vcpu, address, access, physical=True)))
        assert (vm.digest(), vm.pcpu.mmu_counters(), vm.clock.now) == before
        assert vm.ledger.as_dict() == ledger
        end = vm.run()
    with VM(images / "paging.elf", memory="64M") as vm:
        plain = vm.run()
        assert (plain.cycles, plain.exits) == (end.cycles, end.exits)


@pytest.mark.held_by("ept", why="names the exits of VT-x with EPT")
def test_what_would_serve_it() -> None:
    """A page that was just used is in the TLB; of another one the tables are known."""
    with VM(elf64(SPIN), memory="16M", max_instructions=1000) as vm:
        vm.run()
        used = walk_story(vm.current, 0x10_0000)
        assert {step.served_by for step in used.steps} == {"TLB"}
        other = walk_story(vm.current, 0x40_0000)
        assert "memory" in {step.served_by for step in other.steps}
        assert "paging-structure cache" in {step.served_by for step in other.steps}
        physical = walk_story(vm.current, 0x10_0000, physical=True)
        assert physical.guest_references == 0
        assert isinstance(physical.end, Translated)
        nowhere = walk_story(vm.current, 0xFEE0_0000, physical=True)
        assert isinstance(nowhere.end, Exited)


def test_on_the_command_line(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(images / "hello.elf")
    assert main(["explain", "walk", "0x100000", image, "--at", "exit:100"]) == 0
    assert "15 references: 3 of the guest's tables" in capsys.readouterr().out
    words = ["explain", "walk", "gpa:0xfee00000", image, "--at", "cycle:10000", "--json"]
    assert main(words) == 66
    story = json.loads(capsys.readouterr().out)
    assert story["is_physical"] is True
    assert [step["verdict"] for step in story["steps"]][-1] == "EPT violation"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["walk", "x", "I"], "'x' is not an address"),
        (["walk", "-1", "I"], "No such option"),
        (["walk", "1", "I", "--at", "exit:0"], "exits are counted from 1"),
        (["walk", "1", "I", "--at", "exit:x"], "'exit:x' is not a moment"),
        (["walk", "1", "I", "--at", "now"], "'now' is not a moment"),
        (["walk", "1", "I", "--at", "exit:99999"], "the guest makes 714 exits"),
        (["walk", "1", "I", "--at", "cycle:9999999"], "the guest ended before, at cycle"),
        (["walk", "1", "I", "--access", "touch"], "'touch' is not read, write or fetch"),
        (["walk", "1", "I", "--cpu", "3"], "--cpu 3 is not there"),
        (["hang", "I", "--ahead", "-5"], "--ahead -5 is negative"),
        (["exit", "I", "--at", "cycle:5"], "there is no exit at that moment"),
    ],
)
def test_bad_words(
    images: Path, capsys: pytest.CaptureFixture[str], words: list[str], what: str
) -> None:
    image = str(images / "hello.elf")
    assert main(["explain", *(image if word == "I" else word for word in words)]) == 64
    error = capsys.readouterr().err
    assert what in error
    assert error.count("\n") == 1
