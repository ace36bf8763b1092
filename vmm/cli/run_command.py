"""``ring1 run``: the options, as DESIGN names them. Everything is parsed by ``Config.of``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.main import get_command

if TYPE_CHECKING:
    from vmm.config import Config

_MANY = {
    "dialect": "dialects", "initrd": "initrds", "disk": "disks", "channel": "channels",
    "share": "shares",
}  # fmt: skip
_Image = Annotated[str | None, typer.Argument(metavar="[IMAGE]", help="The kernel; none: a demo.")]

_DISK = (
    "A disk image, raw or qcow2; options: format=raw|qcow2, readonly, snapshot (writes are kept in "
    "memory), transport=pci|mmio, packed, speed=ssd|hdd|none, serial=S, queues=N; may be repeated."
)
_NET = (
    "A network card: user[,hostfwd=tcp::2222-:22][,net=,host=,dns=,dhcpstart=,hostname=,restrict=],"
    " or socket,listen=[HOST]:PORT|unix:PATH (or connect=) as a cable to another guest; also mac=,"
    " mtu=; may be repeated."
)
_CHANNEL = (
    "A port /dev/virtio-ports/NAME: listen=ADDRESS, connect=ADDRESS, file=PATH or null; may be "
    "repeated."
)
_KERNEL_ENTRY = (
    "Who unpacks a bzImage: we, or it [auto]; linux: as a PC's loader enters it, not by PVH, under "
    "--dialect xen."
)
_XENSTORE = (
    "Under Xen: a node of xenstore, written at a time of the guest's, as in "
    "control/shutdown=poweroff@2s; may be repeated."
)
_BALLOON = (
    "A memory balloon of that size at first; options: stats=SECONDS, reporting=on|off, "
    "deflate-on-oom=on|off."
)
_TRACE = (
    "Write a trace: for Perfetto, as ftrace text, or records (F.ring); ,last=64M keeps the newest."
)
_SHARE = "A folder for mount -t virtiofs TAG; options: tag=[share], readonly; may be repeated."


def _text(name: str, metavar: str, words: str) -> Any:
    return typer.Option(name, metavar=metavar, help=words)


def run(
    image: _Image = None,
    technique: Annotated[
        str | None, _text("--technique", "vtx|trap|pv|svm", "How the guest is held [vtx].")
    ] = None,
    mmu: Annotated[str | None, _text("--mmu", "ept|shadow", "Whose page tables [ept].")] = None,
    apicv: Annotated[
        bool, typer.Option("--apicv", help="The processor virtualizes local APICs: fewer exits.")
    ] = False,
    dialect: Annotated[
        list[str] | None, _text("--dialect", "kvm,-steal_time,...", "Paravirtual dialects [kvm].")
    ] = None,
    cpus: Annotated[str | None, _text("--cpus", "N", "Processors [1].")] = None,
    pcpus: Annotated[
        str | None, _text("--pcpus", "N", "Physical processors that those share [1].")
    ] = None,
    sched: Annotated[
        str | None,
        _text("--sched", "credit|rr|gang[,...]", "How they share them: slice=5ms, cap=50, ..."),
    ] = None,
    memory: Annotated[str | None, _text("--memory", "SIZE", "RAM [256M].")] = None,
    wakeup: Annotated[
        str | None, _text("--wakeup", "sipi|mailbox", "How further processors are started [sipi].")
    ] = None,
    numa: Annotated[
        str | None, _text("--numa", "N", "Nodes that share processors and memory [1].")
    ] = None,
    cmdline: Annotated[str | None, _text("--cmdline", "S", "Words for the guest.")] = None,
    initrd: Annotated[
        list[str] | None,
        _text("--initrd", "F", 'A module, "FILE words"; may be repeated.'),
    ] = None,
    kernel_entry: Annotated[
        str | None,
        _text("--kernel-entry", "auto|linux|decompressor", _KERNEL_ENTRY),
    ] = None,
    kaslr: Annotated[
        str | None, _text("--kaslr", "SEED", "Shift the unpacked kernel, by this seed [off].")
    ] = None,
    pv_identity: Annotated[
        bool,
        typer.Option("--pv-identity", help="Under pv: machine frames numbered as the guest's own."),
    ] = False,
    xenstore: Annotated[
        list[str] | None, _text("--xenstore", "PATH=VALUE[@TIME]", _XENSTORE)
    ] = None,
    disk: Annotated[list[str] | None, _text("--disk", "F[,readonly]", _DISK)] = None,
    net: Annotated[list[str] | None, _text("--net", "user|socket[,...]", _NET)] = None,
    console: Annotated[
        str | None, _text("--console", "serial|virtio|xen", "What is on the terminal [serial].")
    ] = None,
    channel: Annotated[list[str] | None, _text("--channel", "NAME,listen=...", _CHANNEL)] = None,
    rng: Annotated[str | None, _text("--rng", "seeded|FILE", "A virtio entropy source.")] = None,
    seed: Annotated[str | None, _text("--seed", "N", "Seed of what is random [0].")] = None,
    balloon: Annotated[str | None, _text("--balloon", "on|SIZE[,...]", _BALLOON)] = None,
    share: Annotated[list[str] | None, _text("--share", "DIR[,tag=T]", _SHARE)] = None,
    timing: Annotated[
        str | None, _text("--timing", "fast|cycle|detailed", "What a cycle is [cycle].")
    ] = None,
    cpu_model: Annotated[
        str | None, _text("--cpu-model", "NAME|F.toml", "Processor [cascade-lake].")
    ] = None,
    freq: Annotated[
        str | None,
        _text("--freq", "HZ[,HZ@TIME]...", "The processor's frequency, as in 2.4G,1.2G@10ms."),
    ] = None,
    trace: Annotated[str | None, _text("--trace", "F.perfetto|F.txt", _TRACE)] = None,
    stats: Annotated[
        str | None, _text("--stats", "table|json|FILE", "Form of the statistics [table].")
    ] = None,
    max_cycles: Annotated[str | None, _text("--max-cycles", "N", "Stop after N cycles.")] = None,
    max_instructions: Annotated[
        str | None, _text("--max-instructions", "N", "Stop after N instructions.")
    ] = None,
    timeout: Annotated[
        str | None, _text("--timeout", "SECONDS", "Stop after this much host time.")
    ] = None,
    serial_file: Annotated[
        str | None, _text("--serial-file", "F", "Write serial output to F, not stdout.")
    ] = None,
    screen: Annotated[
        bool,
        typer.Option("--screen", help="Show VGA text; what is typed goes to the keyboard."),
    ] = False,
    record: Annotated[
        str | None, _text("--record", "F", "Record what comes from outside, for ring1 replay.")
    ] = None,
    gdb: Annotated[str | None, _text("--gdb", "[HOST:]PORT", "Serve gdb.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the debugger.")] = False,
    reboot: Annotated[
        bool, typer.Option("--reboot/--no-reboot", help="Restart the guest on a reset.")
    ] = True,
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, help="Say more; twice: tracebacks.")
    ] = 0,
) -> int:
    """Boot IMAGE (or the built-in demo): serial output to stdout, then a table of VM-exits.

    On a terminal Ctrl-C goes to the guest and Ctrl-A x quits.
    """
    options = dict(locals())
    from vmm.cli.session import run_session

    return run_session(config_of(options), options=options)


def config_of(options: dict[str, Any]) -> "Config":
    """Make a Config of the options of `run`, by their names there. Raises UsageError.

    Who runs a guest by a command wants to know where its cycles go; a test's `VM(...)` counts
    instructions unless told otherwise.
    """
    from vmm.config import Config, Timing

    image = options["image"]
    named = {_MANY.get(n, n): value for n, value in options.items() if n not in ("image", "record")}
    if named.get("timing") is None:
        named["timing"] = Timing.CYCLE
    return Config.of(image=None if image is None else Path(image), **named)


def config_of_words(words: Sequence[str], program: str) -> "Config":
    """Make a Config of an image and the options of ``ring1 run``, for commands that take them."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(run)
    with get_command(app).make_context(program, list(words)) as context:
        return config_of(dict(context.params))
