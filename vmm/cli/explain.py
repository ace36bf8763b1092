"""``ring1 explain``: why an entry fails, check by check."""

from typing import Annotated

import typer

from vmm.errors import NotBuiltError, UsageError

app = typer.Typer(help="Why an entry fails, a walk faults, a guest hangs.", rich_markup_mode=None)
FAILED = 66  # as a run that such an entry ends


@app.command()
def entry(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The kernel.")],
    memory: Annotated[str, typer.Option(metavar="SIZE", help="RAM.")] = "256M",
    cmdline: Annotated[str, typer.Option(metavar="S", help="Words for the guest.")] = "",
    after: Annotated[int, typer.Option(metavar="N", help="Run that many instructions first.")] = 0,
) -> int:
    """List every check of the next VM entry, with the values that it looks at."""
    from vmm import VM
    from vmm.observe.entry import explain_entry, findings

    if after < 0:
        raise UsageError(f"--after {after} is negative; give a number of instructions")
    with VM(image, memory=memory, cmdline=cmdline, max_instructions=after or None) as vm:
        if after:
            vm.run()
        for line in explain_entry(vm.current):
            typer.echo(line)
        return 0 if all(finding.passes for finding in findings(vm.current)) else FAILED


def _refuse(name: str) -> None:
    def refuse() -> None:
        raise NotBuiltError(f"ring1 explain {name} is not built yet; see ring1 explain --help")

    app.command(name, help="Not built yet.")(refuse)


for _name in ("walk", "hang"):
    _refuse(_name)
