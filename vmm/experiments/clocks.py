"""get_time: no exits, right through changes of frequency and a move to another machine, monotonic.

Guests hand the time that they read to the hypervisor in a call that does nothing; it is held
against the machine's clock at that exit.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from vmm.experiments.guests import image
from vmm.experiments.report import Claim, Report

if TYPE_CHECKING:
    from hwmodel.vmx.exit import Exit
    from vmm import VM
    from vmm.vcpu import Vcpu

IMAGE: Final = "native_clock.elf"
CALLS: Final = 1_000_000
CHANGES: Final = 10
MOST_ERROR_NS: Final = 1000
_BEGIN, _END = 1, 2  # what the guest says around the readings that may not exit
_LATE: Final = 10_000  # ns; smaller numbers are marks
_FRESH: Final = 2500
"""TSC ticks between reading the time and telling it; more, and another processor's turn was
between, so that nothing is said about the page."""
_RATES: Final = ("1.2G", "3.1G", "2.2G", "800M", "2.9G", "1.7G", "3.3G", "1.1G", "2.4G", "600M")


@dataclass(slots=True)
class Seen:
    """What was read, by whom, against the clock."""

    errors: list[int] = field(default_factory=list)
    rates: set[int] = field(default_factory=set)
    backwards: int = 0
    latest: int = 0
    marks: list[int] = field(default_factory=list)
    """Exits so far, where the readings without exits began and ended."""


def run() -> Report:
    """Two processors over ten changes, then a move to a machine of another rate."""
    plan = ",".join(["2.5G", *(f"{hz}@{300 * n + 400}us" for n, hz in enumerate(_RATES))])
    steady, output = _observe(freq=plan, cmdline=f"cpus=2 calls={CALLS // 10}", cpus=2)
    alone, _ = _observe(freq="2.5G", cmdline=f"cpus=1 calls={CALLS}", cpus=1)
    moved = _move()
    exits = alone.marks[1] - alone.marks[0] - 1 if len(alone.marks) == 2 else -1
    rows = (
        ("ten changes, 2 vCPUs", len(steady.rates), len(steady.errors), *_span(steady)),
        ("moved from 2.5 to 1.8 GHz", len(moved.rates), len(moved.errors), *_span(moved)),
    )
    return Report(
        "clocks",
        "Time without exits",
        "What guests read from the time page, held against the machine's clock at the same "
        "moment; negative: the guest's time is behind. `--timing fast`.",
        ("run", "rates", "readings compared", "least ns", "most ns", "backwards"),
        rows,
        (
            Claim(f"{exits} exits in {CALLS:,} calls of get_time", exits == 0),
            Claim(
                f"{len(steady.rates) - 1} changes of frequency: off by at most "
                f"{_worst(steady)} ns (1 us is allowed)",
                _worst(steady) <= MOST_ERROR_NS and len(steady.rates) == CHANGES + 1,
            ),
            Claim(
                f"a snapshot that goes on on a machine of another TSC rate: off by at most "
                f"{_worst(moved)} ns, and later than before",
                _worst(moved) <= MOST_ERROR_NS and not moved.backwards,
            ),
            Claim(
                "no processor saw an earlier time than any before",
                not steady.backwards and b"FAIL" not in output,
            ),
        ),
    )


def _span(seen: Seen) -> tuple[int, int, int]:
    return min(seen.errors), max(seen.errors), seen.backwards


def _worst(seen: Seen) -> int:
    return max(abs(error) for error in seen.errors)


def _watch(vm: "VM", seen: Seen) -> Callable[["Vcpu", "Exit"], None]:
    """Hear the guest's calls: marks, or times that it read just before."""

    def watch(vcpu: "Vcpu", vmexit: "Exit") -> None:
        if vmexit.name != "VMCALL" or vcpu.regs.rax & 0xFFFF:
            return
        said = vcpu.regs.rbx
        if said in (_BEGIN, _END):
            seen.marks.append(sum(vm.pcpu.exit_counts()))
        elif said > _LATE and vcpu.tsc() - vcpu.regs.rcx < _FRESH:
            seen.errors.append(said - vm.clock.ns())
            seen.rates.add(vm.clock.frequency)
            seen.backwards += said < seen.latest
            seen.latest = max(said, seen.latest)

    return watch


def _observe(**options: Any) -> tuple[Seen, bytes]:
    from vmm import VM

    seen, output = Seen(), bytearray()
    options |= {"memory": "64M", "dialects": "native", "timing": "fast"}
    with VM(image(IMAGE), serial_output=output.extend, **options) as vm:
        vm.watchers.exits.append(_watch(vm, seen))
        vm.run()
    return seen, bytes(output)


def _move() -> Seen:
    """Stop a VM in the middle, and go on in another whose processor is slower."""
    from vmm import VM
    from vmm.together import go_on_as

    seen = Seen()
    options: dict[str, Any] = {"memory": "64M", "dialects": "native", "timing": "fast"}
    options["cmdline"] = "cpus=1 calls=20000"
    with (
        VM(image(IMAGE), freq="2.5G", **options) as old,
        VM(image(IMAGE), freq="1.8G", **options) as new,
    ):
        old.watchers.exits.append(_watch(old, seen))
        new.watchers.exits.append(_watch(new, seen))
        old.run_until(1_000_000)
        go_on_as(new, old.snapshot(), life=1)
        new.run()
    return seen
