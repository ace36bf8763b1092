"""Every choice of one run, checked: the options of ``ring1 run`` as one frozen record.

``Config(...)`` takes typed values; ``Config.of(...)`` takes what people write ("64M", "vtx") and is
the way in for the command line and for ``VM(...)``. Both refuse a bad value with a ``UsageError``
of one line, and what is not built yet with a ``NotBuiltError``. Whether files exist and can be
written is found out by whoever opens them.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, TypeVar

from hwmodel.arch import model
from vmm.disks import Disk
from vmm.errors import NotBuiltError, UsageError
from vmm.frequency import frequency_plan
from vmm.pv_options import StoreWrite, refuse_for_pv
from vmm.schedule import PCPUS_MAX, SchedOptions, check_machine
from vmm.trace_options import TraceFile

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
MEMORY_MIN, MEMORY_MAX = MIB, 512 * GIB
CPUS_MAX = 255  # xAPIC identifiers are one byte, and 0xff means everyone
NUMA_MAX, NUMA_MEMORY_MIN = 8, 4 * MIB  # nodes, and bytes of each


class Technique(StrEnum):
    """How the guest is held."""

    VTX = "vtx"
    TRAP = "trap"
    PV = "pv"
    SVM = "svm"


class Mmu(StrEnum):
    """How guest-physical memory is mapped."""

    EPT = "ept"
    SHADOW = "shadow"


class Timing(StrEnum):
    """What a cycle is. The default becomes CYCLE when the cycle model is built."""

    FAST = "fast"
    CYCLE = "cycle"
    DETAILED = "detailed"


class Wakeup(StrEnum):
    """How processors but the first are started: SIPI always works, a mailbox is there or not."""

    SIPI = "sipi"
    MAILBOX = "mailbox"


class KernelEntry(StrEnum):
    """Where a bzImage starts: AUTO and LINUX unpack the kernel inside on the host where that can be
    done; LINUX enters it as a PC's boot loader does under --dialect xen too, and not by PVH.
    """

    AUTO = "auto"
    LINUX = "linux"
    DECOMPRESSOR = "decompressor"


class Console(StrEnum):
    """What is on the terminal."""

    SERIAL = "serial"
    VIRTIO = "virtio"
    XEN = "xen"


class Stats(Enum):
    """The form of the statistics at the end; FILE is JSON in ``Config.stats_file``."""

    TABLE = "table"
    JSON = "json"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Module:
    """A file handed to the guest by its boot protocol, with the module's own command line."""

    path: Path
    cmdline: str = ""

    @classmethod
    def of(cls, text: "str | Path | Module") -> "Module":
        """Read "FILE" or "FILE words for the guest": a name that exists may contain spaces."""
        if isinstance(text, Module):
            return text
        if isinstance(text, Path) or " " not in text or Path(text).exists():
            return cls(Path(text))
        path, _, cmdline = text.partition(" ")
        return cls(Path(path), cmdline)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One run. ``image`` is a file, the bytes of one, or None for the built-in demo.

    Memory is in bytes; limits are per run, None for none; ``timeout`` is host seconds; ``kaslr`` is
    the seed from which an unpacked kernel is shifted, None for where it is linked. ``net`` holds
    ``--net`` texts and, from Python, backends (``vmm.net.backend``).
    """

    image: Path | bytes | None = None
    technique: Technique = Technique.VTX
    mmu: Mmu = Mmu.EPT
    apicv: bool = False
    dialects: tuple[str, ...] = ()
    cpus: int = 1
    pcpus: int = 1
    sched: SchedOptions | None = None
    wakeup: Wakeup = Wakeup.SIPI
    memory: int = 256 * MIB
    numa: int = 1
    cmdline: str = ""
    initrds: tuple[Module, ...] = ()
    kernel_entry: KernelEntry = KernelEntry.AUTO
    kaslr: int | None = None
    pv_identity: bool = False
    xenstore: tuple[StoreWrite, ...] = ()
    disks: tuple[Disk, ...] = ()
    net: tuple[Any, ...] = ()
    console: Console = Console.SERIAL
    channels: tuple[str, ...] = ()
    rng: str | None = None
    seed: int = 0
    balloon: str | None = None
    shares: tuple[str, ...] = ()
    timing: Timing = Timing.FAST
    cpu_model: str = model.DEFAULT_MODEL
    freq: tuple[tuple[int, int], ...] = ()
    trace: TraceFile | None = None
    stats: Stats = Stats.TABLE
    stats_file: Path | None = None
    max_cycles: int | None = None
    max_instructions: int | None = None
    timeout: float | None = None
    serial_file: Path | None = None
    screen: bool = False
    gdb: tuple[str, int] | None = None
    gdb_monitor: bool = True
    wait: bool = False
    reboot: bool = True
    verbose: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be, then what is not built yet."""
        _check_values(self)
        _check_built(self)

    def has_xen_devices(self) -> bool:
        """Whether disks and network cards are Xen's PV devices beside a virtual PC."""
        return "xen" in self.dialects and bool(self.disks or self.net)

    def has_toolstack(self) -> bool:
        """Whether somebody works on the guest's xenstore beside it: back ends, or a plan."""
        return bool(self.disks or self.net or self.xenstore)

    @classmethod
    def of(cls, **options: Any) -> "Config":
        """Build from written values: strings are parsed, typed values pass, None is the default."""
        known = {item.name for item in fields(cls)}
        if unknown := sorted(options.keys() - known):
            raise UsageError(f"{unknown[0]!r} is not an option; the options are {_list(known)}")
        parsed: dict[str, Any] = {}
        for name, value in options.items():
            if value is not None:
                parsed.update(_PARSERS.get(name, _keep)(name, value))
        if parsed.get("technique") in _SHADOWED:
            parsed.setdefault("mmu", Mmu.SHADOW)
        return cls(**parsed)


_SHADOWED = (Technique.TRAP,)  # techniques without VT-x, which have no EPT
_UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([KMGT]?)(?:I?B)?")


def parse_size(text: str | int) -> int:
    """Return bytes from "64M", "1G", "1.5G", "65536K" or a number of bytes."""
    if isinstance(text, int):
        return text
    found = _SIZE.fullmatch(text.strip().upper())
    if not found:
        raise UsageError(f"--memory {text!r} is not a size; write 64M or 1G")
    number, letter = found.groups()
    unit = _UNITS[letter]
    return int(float(number) * unit) if "." in number else int(number) * unit


def _check_values(config: Config) -> None:
    """Refuse values out of range, naming the option as the command line spells it."""
    _in_range("--cpus", config.cpus, 1, CPUS_MAX)
    _in_range("--pcpus", config.pcpus, 1, PCPUS_MAX)
    check_machine(config)
    _in_range("--numa", config.numa, 1, min(NUMA_MAX, max(config.memory // NUMA_MEMORY_MIN, 1)))
    if not MEMORY_MIN <= config.memory <= MEMORY_MAX:
        raise UsageError(
            f"--memory {size_text(config.memory)} is out of range; give from 1M to 512G"
        )
    if config.memory % 4096:
        raise UsageError(f"--memory {config.memory} is not a multiple of 4K; write 64M or 1G")
    if config.technique in _SHADOWED and config.mmu is Mmu.EPT:
        raise UsageError(
            f"--mmu ept needs VT-x, which --technique {config.technique} does without; "
            "use --mmu shadow, or leave it out"
        )
    if config.technique is Technique.PV and config.mmu is Mmu.SHADOW:
        raise UsageError("--mmu shadow: a pv guest writes its real page tables; leave it out")
    for name in ("max_cycles", "max_instructions"):
        if (limit := getattr(config, name)) is not None:
            _in_range("--" + name.replace("_", "-"), limit, 1, (1 << 63) - 1)
    if not model.is_file(config.cpu_model) and config.cpu_model not in model.names():
        known = ", ".join(model.names())
        raise UsageError(
            f"--cpu-model {config.cpu_model!r} is not known; use one of {known}, or a FILE.toml"
        )
    if config.kaslr is not None:
        _in_range("--kaslr", config.kaslr, 0, (1 << 63) - 1)
    if config.timeout is not None and not (0 < config.timeout < math.inf):
        raise UsageError(f"--timeout {config.timeout} is not a time; give seconds above 0")
    if config.gdb is not None and config.trace is not None:
        raise UsageError("--trace would record again what --gdb runs again; give one of them")
    if config.wait and config.gdb is None:
        raise UsageError("--wait waits for a debugger; give --gdb PORT with it")
    if "\0" in config.cmdline or any("\0" in module.cmdline for module in config.initrds):
        raise UsageError("a command line cannot contain a zero byte; leave it out")


def _check_built(config: Config) -> None:
    """Refuse, in one sentence, what a later version does."""
    if config.apicv and config.technique is not Technique.VTX:
        raise UsageError(f"--apicv is VT-x's; leave it out with --technique {config.technique}")
    if config.technique is Technique.SVM:
        raise NotBuiltError(f"--technique {config.technique} is not built yet; use vtx or trap")
    if config.technique is Technique.PV:
        refuse_for_pv(config)
    elif config.pv_identity:
        raise UsageError("--pv-identity is for --technique pv; leave it out")
    elif config.console is Console.XEN and "xen" not in config.dialects:
        raise UsageError("--console xen is Xen's PV console; give --dialect xen with it")
    elif config.xenstore and "xen" not in config.dialects:
        raise UsageError("--xenstore is Xen's; give --technique pv or --dialect xen with it")


def size_text(size: int) -> str:
    """Return a size as it is written: 256M, 1G, 640K, 4095 bytes."""
    for unit, letter in ((GIB, "G"), (MIB, "M"), (KIB, "K")):
        if size >= unit and size % unit == 0:
            return f"{size // unit}{letter}"
    return f"{size} bytes"


def _in_range(option: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{option} {value} is out of range; give a number from {low} to {high}")


def _list(names: "set[str] | list[str]") -> str:
    return ", ".join(sorted(names))


Parsed = Mapping[str, Any]
Choice = TypeVar("Choice", bound=StrEnum)


def _keep(name: str, value: Any) -> Parsed:
    return {name: value}


def _choice(kind: type[Choice]) -> Callable[[str, Any], Parsed]:
    def parse(name: str, value: Any) -> Parsed:
        try:
            return {name: kind(value)}
        except ValueError:
            choices = ", ".join(kind)
            option = name.replace("_", "-")
            raise UsageError(f"--{option} {value!r} is not one of {choices}; choose one") from None

    return parse


def _number(name: str, value: Any) -> Parsed:
    try:
        return {name: int(value, 0) if isinstance(value, str) else value}
    except ValueError:
        option = name.replace("_", "-")
        raise UsageError(f"--{option} {value!r} is not a number; write 1000 or 0x3e8") from None


def _freq(name: str, value: Any) -> Parsed:
    return {name: value if isinstance(value, tuple) else frequency_plan(value)}


def _seconds(name: str, value: Any) -> Parsed:
    try:
        return {name: float(value)}
    except ValueError:
        raise UsageError(f"--timeout {value!r} is not a time; give seconds, as in 2.5") from None


def _image(name: str, value: Any) -> Parsed:
    if isinstance(value, bytes | bytearray | memoryview):
        return {name: bytes(value)}
    return {name: Path(value)}


def _path(name: str, value: Any) -> Parsed:
    return {name: Path(value)}


def _disks(name: str, value: Any) -> Parsed:
    items = [value] if isinstance(value, str | Path | Disk) else value
    return {name: tuple(Disk.of(item) for item in items)}


def _store_writes(name: str, value: Any) -> Parsed:
    items = [value] if isinstance(value, str | StoreWrite) else value
    return {name: tuple(StoreWrite.of(item) for item in items)}


def _modules(name: str, value: Any) -> Parsed:
    items = [value] if isinstance(value, str | Path | Module) else value
    return {name: tuple(Module.of(item) for item in items)}


def _words(name: str, value: Any) -> Parsed:
    items = value.split(",") if isinstance(value, str) else value
    return {name: tuple(word for item in items for word in item.split(",") if word)}


def _several(name: str, value: Any) -> Parsed:
    """One or many: their words are taken apart by whoever opens them."""
    return {name: tuple(value) if isinstance(value, list | tuple) else (value,)}


def _stats(_name: str, value: Any) -> Parsed:
    if isinstance(value, Stats):
        return {"stats": value}
    if value in (Stats.TABLE.value, Stats.JSON.value):
        return {"stats": Stats(value)}
    return {"stats": Stats.FILE, "stats_file": Path(value)}


def _endpoint(name: str, value: Any) -> Parsed:
    if isinstance(value, tuple):
        return {name: value}
    address, _, monitor = str(value).partition(",")
    host, _, port = address.rpartition(":")
    if not port.isascii() or not port.isdigit() or not int(port[:9]) < 65536:
        raise UsageError(f"--gdb {value!r} is not [HOST:]PORT; write 1234 or 127.0.0.1:1234")
    if monitor not in ("", "monitor=on", "monitor=off"):
        raise UsageError(f"--gdb {value!r}: {monitor!r} is not known; it takes monitor=off")
    return {name: (host or "127.0.0.1", int(port)), "gdb_monitor": monitor != "monitor=off"}


_PARSERS: dict[str, Callable[[str, Any], Parsed]] = {
    "image": _image,
    "technique": _choice(Technique),
    "mmu": _choice(Mmu),
    "timing": _choice(Timing),
    "wakeup": _choice(Wakeup),
    "kernel_entry": _choice(KernelEntry),
    "kaslr": _number,
    "dialects": _words,
    "cpus": _number,
    "pcpus": _number,
    "sched": lambda name, value: {name: SchedOptions.of(value)},
    "numa": _number,
    "memory": lambda name, value: {name: parse_size(value)},
    "initrds": _modules,
    "disks": _disks,
    "xenstore": _store_writes,
    "net": _several,
    "console": _choice(Console),
    "channels": _several,
    "seed": _number,
    "shares": _several,
    "trace": lambda name, value: {name: TraceFile.of(value)},
    "stats": _stats,
    "freq": _freq,
    "max_cycles": _number,
    "max_instructions": _number,
    "timeout": _seconds,
    "serial_file": _path,
    "gdb": _endpoint,
}
