"""The same run twice: instructions, every exit with its place and cycle, and the digest."""

from hashlib import sha256
from typing import TYPE_CHECKING

from vmm.cli.benchmarks.machines import image
from vmm.cli.benchmarks.row import Bound, Row

if TYPE_CHECKING:
    from hwmodel.vmx.exit import Exit
    from vmm.vcpu import Vcpu

IMAGES = ("hello.elf", "timer.elf", "exceptions.elf")


def measure() -> list[Row]:
    """Return a row an image: how many of the facts differ between two runs."""
    rows = []
    for name in IMAGES:
        first, second = _facts(name), _facts(name)
        differing = float(sum(a != b for a, b in zip(first, second, strict=True)))
        note = f"{first[0]:,} instructions, {first[1]:,} exits, digest {first[3][:12]}"
        bound = Bound("", differing, 0)
        rows.append(Row("same twice", name, "differences", differing, bounds=(bound,), note=note))
    return rows


def _facts(name: str) -> tuple[int, int, str, str]:
    """Instructions, exits, a hash of the exit list, the memory digest."""
    from vmm import VM

    exits, count = sha256(), 0

    def note(_vcpu: "Vcpu", vmexit: "Exit") -> None:
        nonlocal count
        count += vmexit.reason < 0x100
        exits.update(repr(vmexit).encode())

    with VM(image(name), memory="64M") as vm:
        vm.watchers.exits.append(note)
        result = vm.run()
        return result.instructions, count, exits.hexdigest(), result.digest()
