"""Run programs on a machine that is used again and again, and hold each run against what must be true."""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from hwmodel.arch.vmcs import Field, Group
from hwmodel.vmx.exit import Exit
from tests.hostile.generate import Program
from tests.hostile.opcodes import turned
from tests.hostile.tables import WILDERNESS
from vmm import VM
from vmm.config import Config
from vmm.memory.guest import PRIVATE_PAGES

TIMING: Final = os.environ.get("RING1_TIMING", "fast")
PAGE: Final = 4096
FIRST_FREE: Final = 2  # private pages: MSR bitmap, bounce page; the others carry a pattern
ALL_SHORT: Final = 40  # slices, after which they become longer: other programs want time too
SLEEP_SECONDS: Final = 0.12  # longer than the window in which Unicorn looks at its TLB's use
_STATE: Final = [field for field in Field if field.group is Group.GUEST_STATE]
_PLAIN: Final = ("cr2", "dr6", "star", "lstar", "cstar", "fmask", "kernel_gs_base", "tsc_aux")


@dataclass(frozen=True, slots=True)
class Run:
    """What a run came to. Two runs of one program must be equal, however they were sliced."""

    end: str
    instructions: int
    cycles: int
    exits: tuple[tuple[int, ...], ...]
    registers: tuple[int, ...]
    fpu: bytes
    pages: dict[int, bytes | memoryview]
    devices: dict[str, Any]


class Machine:
    """One VM for many programs, and the bytes around its guest."""

    def __init__(self, timing: str = TIMING) -> None:
        """Make the VM from an image of HLTs; write a pattern into the pages behind the guest."""
        self.vm: Final = VM(config=_config(timing))
        self._exits: list[tuple[int, ...]] = []
        self.vm.watchers.exits.append(self._watch)
        view, size = self.vm.memory.ram.view, self.vm.memory.size
        pattern = Random(0).randbytes((PRIVATE_PAGES - FIRST_FREE) * PAGE)
        view[size + FIRST_FREE * PAGE : size + PRIVATE_PAGES * PAGE] = pattern
        self._around: Final = self._bytes_around()
        for at, length in WILDERNESS:  # never written again: its translations live on
            self.vm.memory.write(at, turned(Random(at), length, PAGE))
        self._fresh: Final = self.vm.snapshot()
        self._put: Program | None = None
        self._begin = self._fresh

    def _watch(self, _vcpu: Any, vmexit: Exit) -> None:
        self._exits.append((vmexit.reason, vmexit.qualification, vmexit.rip, vmexit.guest_physical))

    def put(self, program: Program) -> None:
        """Make the VM fresh and put the program into it; for a second run, write what changed only."""
        if self._put is program:
            self.vm.restore(self._begin)
            return
        self.vm.restore(self._fresh)
        self._write(program)
        self._put, self._begin = program, self.vm.snapshot()

    def _write(self, program: Program) -> None:
        vm = self.vm
        for gpa, data in program.patches:
            vm.memory.write(gpa, data)
        vcpu = vm.vcpus[0]
        for number, word in enumerate(program.gpr):
            vcpu.regs[number] = word
        for name, word in program.msrs.items():
            if name.startswith("dr"):
                vcpu.regs.native.dr[int(name[2])] = word
            else:
                setattr(vcpu.regs, name, word)
        for where, word in program.fields.items():
            vcpu.vmcs[where] = word
        vcpu.set_cr0(vcpu.regs.cr0)
        vcpu.set_cr4(vcpu.regs.cr4)
        vcpu.regs.efer = vcpu.regs.efer  # and the entry control that goes with it

    def run(self, program: Program, slices: Random | None = None, sleep: float = 0) -> Run:
        """Run from the start to the program's limit, in one go or in slices of random length."""
        self.put(program)
        self._exits = []
        vm, began = self.vm, self.vm.pcpu.instructions
        start = vm.clock.now
        end = start + program.limit
        longest, pieces = slices.choice((1, 2, 5, 30, 200)) if slices else 0, 0
        while not vm.is_stopped() and vm.clock.now < end:
            before, pieces = vm.clock.now, pieces + 1
            size = slices.randint(1, longest) if slices else program.limit
            vm.scheduler.run(min(end, before + size))
            longest += 10 * (pieces > ALL_SHORT)
            if vm.clock.now == before:
                break  # halted, and nothing will ever wake it
            if slices and sleep and slices.random() < 0.1:
                time.sleep(sleep)
                sleep = 0
        return self._outcome(vm.pcpu.instructions - began, vm.clock.now - start)

    def _outcome(self, instructions: int, cycles: int) -> Run:
        vm = self.vm
        stop, vcpu = vm._stop, vm.vcpus[0]
        end = f"{stop.reason}: {stop.message}" if stop else "limit or halt"
        registers = [vcpu.regs[n] for n in range(16)] + [vcpu.vmcs[field] for field in _STATE]
        registers += [getattr(vcpu.regs, name) for name in _PLAIN] + [
            vcpu.regs.dr(n) for n in range(4)
        ]
        return Run(
            end, instructions, cycles, tuple(self._exits), tuple(registers),
            vcpu.pcpu.fxsave(vcpu.vmcs), dict(vm.keeper.take()), vm.board.save(),
        )  # fmt: skip

    def has_touched_others(self) -> bool:
        """Whether bytes behind the guest's memory changed."""
        return self._bytes_around() != self._around

    def _bytes_around(self) -> bytes:
        view, size = self.vm.memory.ram.view, self.vm.memory.size
        whole = bytes(view[size : size + PRIVATE_PAGES * PAGE])
        return whole[:PAGE] + whole[FIRST_FREE * PAGE :]


def _config(timing: str) -> Config:
    image = Path(tempfile.mkdtemp()) / "halt.bin"
    image.write_bytes(b"\xf4" * 512)
    return Config.of(image=str(image), memory="1M", timing=timing)


def differences(one: Run, other: Run) -> str:
    """Name what differs between two runs, in one line."""
    said = [
        f"{name} {getattr(one, name)} / {getattr(other, name)}"
        for name in ("end", "instructions", "cycles")
        if getattr(one, name) != getattr(other, name)
    ]
    names = [*(f"gpr{n}" for n in range(16)), *(f.name for f in _STATE), *_PLAIN, *"0123"]
    words = zip(names, one.registers, other.registers, strict=True)
    said += [f"{name} {a:#x} / {b:#x}" for name, a, b in words if a != b]
    pages = {
        page for page in one.pages | other.pages if one.pages.get(page) != other.pages.get(page)
    }
    said += [f"pages {sorted(pages)}"] if pages else []
    said += [name for name in ("fpu", "devices") if getattr(one, name) != getattr(other, name)]
    return ", ".join(said + _exits(one, other))


def _exits(one: Run, other: Run) -> list[str]:
    for n, (a, b) in enumerate(zip(one.exits, other.exits, strict=False)):
        if a != b:
            return [f"exit {n}: {a} / {b}"]
    here, there = len(one.exits), len(other.exits)
    return [f"{here} / {there} exits"] if here != there else []


def judge(machine: Machine, program: Program, sliced: bool = True) -> list[str]:
    """Return what is wrong; an empty list is the wanted answer. `sliced`: run it in slices too."""
    found = []
    first = machine.run(program)
    if (again := machine.run(program)) != first:
        found.append("not the same twice: " + differences(first, again))
    slices = Random(program.seed ^ 0x5EED)
    sleep = SLEEP_SECONDS if slices.random() < 0.002 else 0
    if sliced and (pieces := machine.run(program, slices, sleep)) != first:
        found.append("not the same in slices: " + differences(first, pieces))
    if machine.has_touched_others():
        found.append("memory behind the guest was written")
    return found
