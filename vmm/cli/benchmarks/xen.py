"""Debian's generic kernel as a Xen PV domain, beside itself under vtx and under QEMU TCG.

Processor time of the process: before the kernel's first line (start included; under PV its walk
over 512 GB of frame numbers), from there to the shell, and for what the PV disk and the PV card
carry. QEMU is no Xen host: it boots the same ELF and initrd as a PC.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from vmm.cli.benchmarks.devices import peer
from vmm.cli.benchmarks.linux import kernel_and_initrd
from vmm.cli.benchmarks.machines import qemu_boot, qemu_missing, seconds_at
from vmm.cli.benchmarks.row import Bound, Row, middle

_WORDS, _MEMORY = "cryptomgr.notests", "512"
_DISK_MIB, _NET_MIB = 256, 64
_BANNER, _SHELL = b"Linux version", b"MARK-begin-"
_WALK_LIMIT_S, _OF_VTX_LIMIT, _DISK_LEAST = 3.0, 1.2, 50
_STEPS = {
    "read": ("PV disk, dd", _DISK_MIB, _DISK_LEAST),
    "direct": ("PV disk, dd with O_DIRECT", _DISK_MIB, _DISK_LEAST),
    "sent": ("PV network, TCP from the guest to the host", _NET_MIB, None),
    "received": ("PV network, TCP from the host to the guest", _NET_MIB, None),
}
"""Word -> what it ends, how many MiB that moves, how many a second are to be reached."""
_SCRIPT = """
mark() {{ sleep 0.2; echo "MARK-$1-"; }}
mark begin
ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
mark up
dd if=/dev/xvda of=/dev/null bs=1M count={disk} 2> /dev/null
mark read
dd if=/dev/xvda of=/dev/null bs=1M count={disk} iflag=direct 2> /dev/null
mark direct
nc 10.0.2.2 {port} -e dd if=/dev/zero bs=64k count={blocks}
mark sent
nc 10.0.2.2 {port} -e dd of=/dev/null bs=64k
mark received
"""


def measure(runs: int) -> list[Row]:
    """Return the rows; medians of at most three runs, taken in turn. None without the package."""
    from vmm.cli.kernels import Flavour
    from vmm.cli.packages import PackageError

    with TemporaryDirectory() as name, peer(_NET_MIB) as port:
        folder, disk = Path(name), Path(name) / "disk"
        script = _SCRIPT.format(port=port, disk=_DISK_MIB, blocks=16 * _NET_MIB)
        try:
            files = kernel_and_initrd(folder, script, Flavour.GENERIC)
        except PackageError as error:
            sys.stderr.write(f"ring1: no figures for Xen: {error}\n")
            return []
        with disk.open("wb") as file:
            file.truncate(_DISK_MIB << 20)
        programs = _programs(*files)
        carrier = [*programs["pv"], "--disk", f"{disk},format=raw", "--net", "user"]
        seen = middle([_round(programs) | _rates(carrier) for _ in range(min(runs, 3))])
    return [*boots(seen), *(carried(step, seen) for step in _STEPS)]


def _programs(image: Path, initrd: Path) -> dict[str, list[str]]:
    ours = [
        sys.executable, "-m", "vmm", "run", str(image), "--initrd", str(initrd),
        "--memory", f"{_MEMORY}M", "--timing", "fast",
    ]  # fmt: skip
    serial = f"console=ttyS0 {_WORDS}"
    programs = {
        "pv": [*ours, "--technique", "pv", "--cmdline", f"console=hvc0 {_WORDS}"],
        "vtx": [*ours, "--cmdline", serial],
    }
    if qemu_missing() is None:
        programs["qemu"] = qemu_boot((image, initrd), serial, _MEMORY, "microvm,acpi=off")
    return programs


def _round(programs: dict[str, list[str]]) -> dict[str, float]:
    """Boot each once: seconds before the first line, and from there to the shell; the ratio is of
    what ran side by side.
    """
    seen: dict[str, float] = {}
    for program, words in programs.items():
        found = [
            *seconds_at(words, [_BANNER, _SHELL]),
            *[float("nan")] * 2,
        ]
        seen |= {f"{program} before": found[0], f"{program} boot": found[1] - found[0]}
    return seen | {"ratio": seen["pv boot"] / seen["vtx boot"]}


def _rates(words: list[str]) -> dict[str, float]:
    """Run the script to its end; MiB a second by step."""
    found = seconds_at(words, [f"MARK-{name}-".encode() for name in ("up", *_STEPS)])
    return {
        f"pv {step}": _STEPS[step][1] / (end - begin)
        for step, begin, end in zip(_STEPS, found, found[1:], strict=False)
    }


def boots(seen: dict[str, float]) -> list[Row]:
    """Return the rows of the boots, from seconds by program and what."""
    qemu = {"qemu": seen["qemu boot"]} if "qemu boot" in seen else {}
    ratio = Bound("of vtx", seen["ratio"], _OF_VTX_LIMIT)
    walk = Bound("s", seen["pv before"], _WALK_LIMIT_S)
    others = f"{seen['vtx before']:.2f} s under vtx"
    if qemu:
        others += f", {seen['qemu before']:.2f} s under QEMU, where nothing is to be walked"
    what = "Debian's generic kernel"
    return [
        Row("xen", f"{what} as PV, before its first line", "s", seen["pv before"], {}, (walk,),
            others),
        Row("xen", f"{what} as PV, from its first line to its shell", "s", seen["pv boot"], qemu,
            (ratio,), "QEMU is no Xen host: a plain boot" if qemu else ""),
        Row("xen", "the same under vtx", "s", seen["vtx boot"], qemu),
    ]  # fmt: skip


def carried(step: str, seen: dict[str, float]) -> Row:
    """Return the row of what a device carries."""
    name, _, least = _STEPS[step]
    rate = seen.get(f"pv {step}", float("nan"))
    bounds = () if least is None else (Bound("MiB/s", rate, least, at_least=True),)
    return Row("xen", name, "MiB/s", rate, {}, bounds, "per CPU second")
