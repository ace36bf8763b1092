"""A device driven register by register against a ring, for the same bytes."""

from typing import TYPE_CHECKING, Final

from vmm.experiments.guests import image, parse
from vmm.experiments.report import Claim, Report

if TYPE_CHECKING:
    from hwmodel.vmx.exit import Exit
    from vmm.vcpu import Vcpu

IMAGE: Final = "bench_native_io.elf"
WAYS: Final = ("registers", "ring")
_NOP: Final = 0x5231_0000  # marks, by the first argument


def run() -> Report:
    """Run the guest; count exits between its marks."""
    from vmm import VM

    output, marks = bytearray(), list[int]()
    with VM(
        image(IMAGE), memory="64M", timing="cycle", dialects="native", serial_output=output.extend
    ) as vm:

        def watch(vcpu: "Vcpu", vmexit: "Exit") -> None:
            if vmexit.name == "VMCALL" and vcpu.regs.rax == _NOP:
                marks.append(sum(vm.pcpu.exit_counts()))

        vm.watchers.exits.append(watch)
        vm.run()
    found = parse(bytes(output))
    exits = [marks[1] - marks[0] - 1, marks[3] - marks[2] - 1]
    cycles = [next(iter(found[way].values())) for way in WAYS]
    size = next(iter(found["ring"]))
    lines = [line for line in bytes(output).replace(b"\r", b"").split(b"\n") if len(line) == 63]
    half = len(lines) // 2
    fell = 1 - exits[1] / exits[0]
    return Report(
        "ring_io",
        "A device by registers and by a ring",
        f"The same {size:,} bytes, to the 16550 (status and data register for each) and through "
        "the native ring (one descriptor for 256 bytes, one kick for all). `--timing cycle`.",
        ("way", "exits", "cycles", "cycles a byte"),
        tuple((w, e, c, c / size) for w, e, c in zip(WAYS, exits, cycles, strict=True)),
        (
            Claim(f"exits fall by {fell:.3%}: more than 99 %", fell > 0.99),
            Claim(
                f"both ways show the same {half} lines",
                half > 0 and lines[:half] == lines[half:],
            ),
        ),
    )
