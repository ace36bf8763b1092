"""What each pane of the terminal debugger shows, as text: read off a stopped session."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vmm.debug import view
from vmm.debug.condition import Condition
from vmm.debug.shell import Shell
from vmm.debug.stop import CodeStop
from vmm.errors import UsageError

if TYPE_CHECKING:
    from hwmodel.arch.vmcs import Field

_CODE_LINES: Final = 40
_EXITS: Final = 200
_CONSOLE_LINES: Final = 200
_TURNED: Final = "reverse"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a pane; `style` in rich's words; `address` for lines of code, `exit` for exits."""

    text: str
    style: str = ""
    address: int | None = None
    exit: int | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """All panes."""

    title: str
    code: list[Row]
    registers: list[Row]
    panes: dict[str, list[Row]] = field(default_factory=dict)


PANES: Final = ("exits", "vmcs", "walk", "machine", "console", "answers")


class Painter:
    """Draws pictures of one shell's session; only the pane that is seen costs anything."""

    def __init__(self, shell: Shell) -> None:
        """No filter, and no registers to compare with yet."""
        self.shell: Final = shell
        self.filter: Condition | None = None
        self._registers: dict[str, int] = {}

    def paint(self, pane: str) -> Picture:
        """Read what is to be seen, with `pane` in front."""
        draw = {
            "exits": self._exits, "vmcs": self._vmcs, "walk": self._walk,
            "machine": self._machine, "console": self._console,
        }.get(pane)  # fmt: skip
        panes = {pane: draw()} if draw is not None else {}
        return Picture(self._title(), self._code(), self._register_rows(), panes)

    def _title(self) -> str:
        session = self.shell.session
        now = session.now
        past = "  PAST" if session.is_in_the_past else ""
        return (
            f"vCPU {session.vcpu.index} {session.vcpu.mode()}  cycle {now.cycle:,}  step "
            f"{now.steps:,}  exit {now.exits:,}{' open' if now.is_open else ''}{past}"
        )

    def _code(self) -> list[Row]:
        session = self.shell.session
        at = view.code_address(session.vcpu)
        marked = {s.address for s in session.stops if isinstance(s, CodeStop)}
        rows = [Row(self.shell.where(), "bold")]
        for line in view.disassemble(session.vcpu, at, _CODE_LINES):
            mark = "*" if line.address in marked else " "
            style = _TURNED if line.address == at else ""
            text = f"{mark}{line.address:>16x} {line.text}"
            rows.append(Row(text, style, address=line.address))
        return rows if len(rows) > 1 else [*rows, Row("  (not mapped)")]

    def _register_rows(self) -> list[Row]:
        values = self.shell.registers()
        names = [*list(values)[:16], "rip", "rflags", "cr0", "cr2", "cr3", "cr4", "efer"]
        rows = []
        for name in names:
            changed = self._registers.get(name, values[name]) != values[name]
            rows.append(Row(f"{name:>6} {values[name]:016x}", "bold yellow" if changed else ""))
        self._registers = values
        return rows

    def _exits(self) -> list[Row]:
        session, found = self.shell.session, self.shell.vm.exits
        if self.filter is not None:
            found = [vmexit for vmexit in found if self.filter.holds_for(vmexit)]
        newest = session.now.exits
        rows = []
        for vmexit in reversed(found[-_EXITS:]):
            row = view.exit_row(vmexit)
            style = _TURNED if vmexit.sequence == newest and session.open_exit else ""
            rows.append(Row(view.exit_text(row), style, exit=vmexit.sequence))
        head = f"filter: {self.filter.text}" if self.filter else "all exits; / filters"
        return [Row(head, "dim"), *rows]

    def _vmcs(self) -> list[Row]:
        changes = view.since_last_exit(self.shell.session)
        rows = [Row(f"{len(changes)} fields changed since the last exit", "dim")]
        rows += [
            Row(f"{f.name:<34} {then:#x} -> {now:#x}", "bold yellow")
            for f, (then, now) in changes.items()
        ]
        values: dict[Field, int] = view.fields(self.shell.session.vcpu)
        return rows + [
            Row(f"{f.name:<34} {value:#x}")
            for f, value in values.items()
            if value and f not in changes
        ]

    def _walk(self) -> list[Row]:
        session = self.shell.session
        vmexit = session.open_exit
        at = view.code_address(session.vcpu)
        if vmexit is not None and vmexit.guest_linear:
            at = vmexit.guest_linear
        found = view.walk(session.vcpu, at)
        return [Row(f"walk of {at:#x}", "dim"), *map(Row, view.draw_walk(found))]

    def _machine(self) -> list[Row]:
        rows = []
        for verb in ("vcpus", "ledger", "checkpoints", "tlb"):
            rows += [Row(verb, "dim"), *map(Row, self.shell.execute(verb).lines)]
        return rows

    def _console(self) -> list[Row]:
        lines = self.shell.execute(f"console {_CONSOLE_LINES}").lines
        return [Row(line) for line in lines] or [Row("the guest has said nothing yet", "dim")]

    def set_filter(self, text: str) -> None:
        """Show only exits that meet a condition; none shows all. Raises UsageError."""
        condition = Condition.parse(text) if text.strip() else None
        if condition is not None:
            for vmexit in self.shell.vm.exits[-1:]:
                condition.holds_for(vmexit)  # may it be asked of the past?
        self.filter = condition


__all__ = ["PANES", "Painter", "Picture", "Row", "UsageError"]
