"""kvm-unit-tests: kernels that nobody here wrote. RING1_KUT_DIR names the folder of `*.flat`.

The images are not part of this repository. `Expected.passes` is what a correct machine prints;
SKIP is the honest answer where CPUID does not offer the feature.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from hwmodel.arch.model import DEFAULT_MODEL
from vmm import VM, Result

pytestmark = pytest.mark.oracle

FOLDER = os.environ.get("RING1_KUT_DIR")
if FOLDER is None:
    pytest.skip("RING1_KUT_DIR is unset: it names the folder of *.flat", allow_module_level=True)

MOST_INSTRUCTIONS = 2_000_000_000
PASSED, SKIPPED = 0 << 1 | 1, 77 << 1 | 1
ENVIRONMENT = "NR_CPUS=1\nMEMSIZE=128\nMEMLIMIT=128\nTEST_DEVICE=1\nBOOTLOADER=1\n"


@dataclass(frozen=True)
class Expected:
    """What one image prints and how it ends."""

    image: str
    passes: int
    may_skip: bool = False
    cpu_model: str = DEFAULT_MODEL


RUNGS = [
    Expected("dummy", 0),
    Expected("setjmp", 10),
    Expected("realmode", 127),
    Expected("tsc", 3),
    Expected("idt_test", 4),
    Expected("eventinj", 13),
    Expected("smap", 18),
    Expected("pku", 7),
    Expected("pks", 7, cpu_model="sapphire-rapids"),
    Expected("pcid", 2),
    Expected("la57", 52, may_skip=True, cpu_model="sapphire-rapids"),
    Expected("umip", 21),
    Expected("tsc_adjust", 6),
    Expected("memory", 4),
    Expected("xsave", 4),
    Expected("syscall", 2, cpu_model="zen3"),
    Expected("rmap_chain", 1),
    Expected("debug", 25),
]


def boot(
    name: str, environment: Path, cpus: int = 1, cmdline: str = "", cpu_model: str = DEFAULT_MODEL
) -> tuple[Result, list[str]]:
    """How the run ended, and the lines that the image printed."""
    image = Path(str(FOLDER)) / f"{name}.flat"
    if not image.exists():
        pytest.skip(f"{image} does not exist")
    serial = bytearray()
    with VM(
        image,
        memory="128M",
        cpus=cpus,
        cmdline=cmdline,
        cpu_model=cpu_model,
        initrds=[environment],
        serial_output=serial.extend,
        max_instructions=MOST_INSTRUCTIONS,
        reboot=False,
    ) as vm:
        result = vm.run()
    return result, serial.decode(errors="replace").replace("\r", "").splitlines()


@pytest.mark.parametrize("expected", RUNGS, ids=lambda expected: expected.image)
def test_rung(expected: Expected, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    environment.write_text(ENVIRONMENT)
    result, lines = boot(expected.image, environment, cpu_model=expected.cpu_model)
    text = "\n".join(lines[-60:])
    assert not [line for line in lines if line.startswith("FAIL")], text
    skipped = [line for line in lines if line.startswith("SKIP") or "not available" in line]
    passes = len([line for line in lines if line.startswith("PASS")])
    if skipped and expected.may_skip and passes != expected.passes:
        assert result.status in (PASSED, SKIPPED), result.message + text
        pytest.skip(f"the machine does not offer it: {skipped[0]}")
    assert result.status == PASSED, result.message + "\n" + text
    assert passes == expected.passes, text
    assert not [line for line in lines if "unexpected failure" in line], text


def environment_of(cpus: int, folder: Path) -> Path:
    """What the images read about their machine; the loader passes their name as argument 0."""
    path = folder / "env"
    path.write_text(
        ENVIRONMENT.replace("NR_CPUS=1", f"NR_CPUS={cpus}").replace("BOOTLOADER=1\n", "")
    )
    return path


@pytest.mark.parametrize("cpus", [1, 2])
def test_kvm_clock_does_not_warp(cpus: int, tmp_path: Path) -> None:
    environment = environment_of(cpus, tmp_path)
    result, lines = boot("kvmclock_test", environment, cpus=cpus, cmdline="50000 1767225600")
    text = "\n".join(lines)
    assert result.status == PASSED, text
    assert "PASS: 0 time warps detected" in lines
    assert text.count("offset: 0)") == cpus
    assert text.count("loops: 50000") == 4


def test_hypercalls(tmp_path: Path) -> None:
    result, lines = boot("hypercall", environment_of(1, tmp_path))
    assert result.status == PASSED, lines
    assert len([line for line in lines if line.startswith("PASS")]) == 4


def test_asynchronous_page_faults(tmp_path: Path) -> None:
    """The image touches 1 GiB; when it begins, 512 pages in the midst of it are swapped out."""
    image = Path(str(FOLDER)) / "asyncpf.flat"
    if not image.exists():
        pytest.skip(f"{image} does not exist")
    serial = bytearray()
    with VM(
        image, memory="1200M", initrds=[environment_of(1, tmp_path)],
        serial_output=serial.extend, reboot=False,
    ) as vm:  # fmt: skip
        for _ in vm:  # its first exits; from the long loop on there are none but ours
            if vm.pcpu.instructions > 100_000:
                break
        while not vm.is_stopped() and not vm.regs.rflags & 1 << 9:  # only the loop has it set
            vm.scheduler.run(vm.clock.now + 200_000)
        vm.pager.swap_out(0x30000000, 512 * 4096)
        result = vm.run()
    text = serial.decode(errors="replace")
    assert result.status == PASSED, text
    assert "PASS: Serviced 512 async page faults" in text
