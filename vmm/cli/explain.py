"""``ring1 explain``: why an entry fails, a walk faults, a guest hangs or exits; a p2m's audit."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmm.errors import UsageError

if TYPE_CHECKING:
    from vmm import VM

app = typer.Typer(
    help="Why an entry fails, a walk faults, a guest hangs or exits.", rich_markup_mode=None
)
FAILED = 66  # as a run that such an entry ends

_Image = Annotated[str, typer.Argument(metavar="IMAGE", help="The kernel.")]
_At = Annotated[
    str | None,
    typer.Option("--at", metavar="exit:N|cycle:N", help="When; else where the guest ends."),
]
_Memory = Annotated[str, typer.Option(metavar="SIZE", help="RAM.")]
_Cmdline = Annotated[str, typer.Option(metavar="S", help="Words for the guest.")]
_Initrd = Annotated[list[str] | None, typer.Option(metavar="F", help="A module.")]
_Cpus = Annotated[str, typer.Option(metavar="N", help="Processors.")]
_Mmu = Annotated[str, typer.Option(metavar="ept|shadow", help="Whose page tables.")]
_Timing = Annotated[str, typer.Option(metavar="fast|cycle|detailed", help="What a cycle is.")]
_Json = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
def entry(
    image: _Image,
    at: _At = None,
    memory: _Memory = "256M",
    cmdline: _Cmdline = "",
    initrd: _Initrd = None,
    cpus: _Cpus = "1",
    mmu: _Mmu = "ept",
    after: Annotated[int, typer.Option(metavar="N", help="Run that many instructions first.")] = 0,
) -> int:
    """List every check of the next VM entry, with the values that it looks at."""
    from vmm.observe.entry import explain_entry, findings

    if after < 0:
        raise UsageError(f"--after {after} is negative; give a number of instructions")
    with _vm(image, memory, cmdline, initrd, cpus, mmu, max_instructions=after or None) as vm:
        if after:
            vm.run()
        elif at is not None:
            _go(vm, at)
        _print(explain_entry(vm.current))
        return 0 if all(finding.passes for finding in findings(vm.current)) else FAILED


@app.command()
def walk(
    address: Annotated[
        str, typer.Argument(metavar="VA|gpa:GPA", help="A linear address, or gpa: and a physical.")
    ],
    image: _Image,
    at: _At = None,
    access: Annotated[str, typer.Option(metavar="read|write|fetch", help="For what.")] = "read",
    user: Annotated[
        bool | None, typer.Option("--user/--supervisor", help="By whom; else as it runs.")
    ] = None,
    cpu: Annotated[int | None, typer.Option(metavar="N", help="Which vCPU; else the last.")] = None,
    memory: _Memory = "256M",
    cmdline: _Cmdline = "",
    initrd: _Initrd = None,
    cpus: _Cpus = "1",
    mmu: _Mmu = "ept",
    as_json: _Json = False,
) -> int:
    """Tell a page walk, reference by reference; nothing of the guest changes."""
    from hwmodel.mem.reference import Access
    from vmm.observe.walk import walk_lines, walk_story

    physical, number = _address(address)
    if access.upper() not in Access.__members__:
        raise UsageError(f"--access {access!r} is not read, write or fetch; choose one")
    with _vm(image, memory, cmdline, initrd, cpus, mmu) as vm:
        _go(vm, at)
        vcpu = vm.current if cpu is None else _cpu(vm, cpu)
        story = walk_story(vcpu, number, Access[access.upper()], user=user, physical=physical)
        _print(_json(story) if as_json else walk_lines(story))
        return 0 if story.reaches else FAILED


@app.command()
def hang(
    image: _Image,
    at: _At = None,
    memory: _Memory = "256M",
    cmdline: _Cmdline = "",
    initrd: _Initrd = None,
    cpus: _Cpus = "1",
    mmu: _Mmu = "ept",
    ahead: Annotated[
        int, typer.Option(metavar="CYCLES", help="Run on that far to see who spins.")
    ] = 10_000_000,
    as_json: _Json = False,
) -> int:
    """Tell what each virtual CPU waits for, since when, and who could end it."""
    from vmm.observe.hang import hang_lines, hang_story

    if ahead < 0:
        raise UsageError(f"--ahead {ahead} is negative; give a number of cycles")
    with _vm(image, memory, cmdline, initrd, cpus, mmu) as vm:
        _go(vm, at)
        story = hang_story(vm, ahead=0 if vm.is_stopped() else ahead)
        _print(_json(story) if as_json else hang_lines(story, _names(vm)))
        return FAILED if story.is_stuck else 0


@app.command()
def p2m(
    image: _Image,
    frame: Annotated[
        str | None, typer.Option(metavar="PFN", help="One pseudo-physical frame.")
    ] = None,
    memory: _Memory = "256M",
    cmdline: _Cmdline = "",
    initrd: _Initrd = None,
    cpus: _Cpus = "1",
    after: Annotated[int, typer.Option(metavar="N", help="Run that many instructions first.")] = 0,
) -> int:
    """Audit a Xen PV guest's frames: what each is, who refers to it, where the lists disagree."""
    from vmm import VM
    from vmm.observe.p2m import frame_lines, p2m_story, story_lines

    if after < 0:
        raise UsageError(f"--after {after} is negative; give a number of instructions")
    wanted = None if frame is None else _frame(frame)
    with VM(
        image, memory=memory, cmdline=cmdline, initrds=initrd or [], cpus=cpus, technique="pv",
        max_instructions=after or None,
    ) as vm:  # fmt: skip
        if after:
            vm.run()
        if wanted is not None:
            _print(frame_lines(vm, wanted))
            return 0
        story = p2m_story(vm)
        _print(story_lines(story))
        return 0 if story.is_sound else FAILED


def _frame(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise UsageError(f"--frame {text!r} is no number; give a frame, as 0x100") from None


@app.command("exit")
def exit_command(
    image: _Image,
    at: _At = None,
    memory: _Memory = "256M",
    cmdline: _Cmdline = "",
    initrd: _Initrd = None,
    cpus: _Cpus = "1",
    mmu: _Mmu = "ept",
    timing: _Timing = "fast",
    as_json: _Json = False,
) -> int:
    """Tell one exit (the last, without --at): why, what its handler does, what it costs."""
    from vmm.observe.at import At, last_exit, run_to
    from vmm.observe.exit import effects_of, exit_lines, exit_story, with_price

    options = (image, memory, cmdline, initrd, cpus, mmu)
    moment = At.of(at) if at is not None else None
    if moment is None:
        with _vm(*options, timing=timing) as vm:
            moment = last_exit(vm)
    if moment is None or moment.unit != "exit":
        raise UsageError("there is no exit at that moment; give --at exit:N")
    with _vm(*options, timing=timing) as vm:
        recorder = vm.pcpu.recorder()
        recorder.add_up()
        vmexit = run_to(vm, moment)
        assert vmexit is not None
        vcpu = vm.current
        story = exit_story(vcpu, vmexit, _names(vm)[vcpu.index])
        effects = effects_of(vm, vcpu, lambda: vcpu.handle(vmexit))
        vmexit.handled = True
        effects = with_price(effects, recorder.counters())
        _print(_json((story, effects)) if as_json else exit_lines(story, effects))
    return 0


def _vm(
    image: str, memory: str, cmdline: str, initrd: list[str] | None, cpus: str, mmu: str,
    **options: Any,
) -> "VM":  # fmt: skip
    from vmm import VM

    return VM(image, memory=memory, cmdline=cmdline, initrds=initrd, cpus=cpus, mmu=mmu, **options)


def _go(vm: "VM", at: str | None) -> None:
    from vmm.observe.at import At, run_to

    run_to(vm, None if at is None else At.of(at))


def _cpu(vm: "VM", number: int) -> Any:
    if not 0 <= number < len(vm.vcpus):
        raise UsageError(f"--cpu {number} is not there; give 0 to {len(vm.vcpus) - 1}")
    return vm.vcpus[number]


def _address(text: str) -> tuple[bool, int]:
    """Read an address; whether it is guest-physical."""
    physical = text.lower().startswith("gpa:")
    digits = text[4:] if physical else text
    try:
        number = int(digits, 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise UsageError(f"{text!r} is not an address; write 0x1000, or gpa:0x1000")
    return physical, number


def _names(vm: "VM") -> dict[int, str]:
    """Where each virtual CPU is, by name, if the image has names."""
    from vmm.symbols.guest import GuestNames

    names = GuestNames(vm.config, vm.plan)
    if not len(names.image):
        return {vcpu.index: "" for vcpu in vm.vcpus}
    return {vcpu.index: names.where(vcpu) for vcpu in vm.vcpus}


def _json(data: Any) -> Iterable[str]:
    from vmm.observe.plain import to_json

    yield to_json(data)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)
