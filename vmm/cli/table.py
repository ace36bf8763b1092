"""Statistics as a table for people, on stderr."""

from rich.console import Console
from rich.table import Table

from vmm.observe.stats import Statistics


def print_table(statistics: Statistics) -> None:
    """Print the exits by frequency, and the totals below."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    table = Table(title="VM-exits", title_justify="left", show_footer=False)
    table.add_column("exit")
    costs = any(statistics.exit_cycles.values())  # under --timing fast an exit costs nothing
    for heading in ("count", "share", "cycles")[: 2 + costs]:
        table.add_column(heading, justify="right")
    for name, count, share, cycles in statistics.rows():
        table.add_row(*(name, f"{count:,}", f"{share:.1%}", f"{cycles:,}")[: 3 + costs])
    if statistics.exits:
        console.print(table)
    if costs:
        console.print(_ledger(statistics.ledger))
    total = sum(statistics.exits.values())
    if statistics.patched:
        seen = ", ".join(f"{name} {count:,}" for name, count in statistics.hardware_exits.items())
        console.print(f"the processor saw: {seen}; patched: {statistics.patched:,}")
    console.print(
        f"{statistics.reason}, status {statistics.status}: {total:,} exits, "
        f"{statistics.instructions:,} instructions, {statistics.cycles:,} cycles, "
        f"{statistics.wall_seconds:.3f} s",
        soft_wrap=True,
    )


def _ledger(ledger: dict[str, int]) -> Table:
    """Where the cycles went, by heading; those that took none are left out."""
    table = Table(title="Cycles", title_justify="left")
    table.add_column("heading")
    for heading in ("cycles", "share"):
        table.add_column(heading, justify="right")
    total = sum(ledger.values()) or 1
    for name, cycles in ledger.items():
        if cycles:
            table.add_row(name, f"{cycles:,}", f"{cycles / total:.1%}")
    return table
