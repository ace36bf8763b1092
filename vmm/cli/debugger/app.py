"""`ring1 debug IMAGE`: code, registers, exits, VMCS, walks, caches, ledger, console, verbs.

Single keys go forwards, the same keys with Shift backwards. Runs happen in a worker thread; Escape
stops one. 80 columns by 24 lines are enough.
"""

from collections.abc import Callable
from typing import ClassVar, Final

from rich.text import Text
from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Footer, Input, OptionList, Static, TabbedContent, TabPane
from textual.widgets.option_list import Option

from vmm.cli.debugger.picture import PANES, Painter, Picture, Row
from vmm.debug.session import Session
from vmm.debug.shell import Answer, Shell
from vmm.errors import UsageError

_TITLES: Final = dict(
    zip(PANES, ("Exits", "VMCS", "Walk", "Machine", "Console", "Answers"), strict=True)
)
_COMMAND_HINT: Final = "verb (help lists them); Escape goes back"


class Rows(OptionList, can_focus=True):
    """A pane of lines that can be scrolled and clicked."""

    def show(self, rows: list[Row]) -> None:
        """Replace what is shown."""
        self.clear_options()
        self.add_options([Option(Text(row.text, row.style, no_wrap=True)) for row in rows])
        self.rows = rows


class Debugger(App[None]):
    """The screen."""

    CSS = """
    #title { height: 1; background: $primary; color: $text; }
    #top { height: 45%; min-height: 8; }
    #code { width: 1fr; border: none; padding: 0; }
    #registers { width: 25; border: none; padding: 0; }
    Rows { border: none; padding: 0; height: 1fr; }
    TabbedContent { height: 1fr; }
    TabPane { padding: 0; }
    Input { height: 1; border: none; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "go('step')", "Step"),
        Binding("S", "go('rstep')", "back", key_display="S"),
        Binding("n", "go('exit next')", "Next exit"),
        Binding("N", "go('exit prev')", "prev", key_display="N"),
        Binding("f", "go('finish')", "Finish"),
        Binding("c", "go('continue')", "Continue"),
        Binding("C", "go('rcontinue')", "back", key_display="C"),
        Binding("b", "breakpoint", "Break"),
        # At once, before the next key is given to anybody: a verb may come in one burst.
        Binding("colon", "command", "Verb", key_display=":", priority=True),
        Binding("slash", "filter", "Filter", key_display="/", priority=True),
        Binding("q", "quit", "Quit"),
        Binding("escape", "leave", "Stop", show=False, priority=True),
        *(Binding(str(n), f"pane('{name}')", name, show=False) for n, name in enumerate(PANES, 1)),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.shell = Shell(session)
        self.painter = Painter(self.shell)
        self.answers: list[Row] = [Row("? verbs are written behind ':'; try help", "dim")]
        self.is_running_guest = False
        self._asks: Callable[[str], str] | None = None

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield Static(id="title")
        with Horizontal(id="top"):
            yield Rows(id="code")
            yield Rows(id="registers")
        with TabbedContent(initial="exits"):
            for name, title in _TITLES.items():
                with TabPane(title, id=name):
                    yield Rows(id=f"rows-{name}")
        yield Input(id="command", placeholder=_COMMAND_HINT)
        yield Footer()

    def on_mount(self) -> None:
        """Show where it starts."""
        self.set_focus(self.query_one("#code", Rows))
        self.carry_out("")

    # ---- what keys do ----

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave the command line its colons and slashes."""
        if action in ("command", "filter") and self.query_one(Input).has_focus:
            return False
        return super().check_action(action, parameters)

    def action_go(self, line: str) -> None:
        """Carry out a verb that a key stands for."""
        self.carry_out(line)

    def action_pane(self, name: str) -> None:
        """Bring a pane to the front."""
        self.query_one(TabbedContent).active = name

    def action_command(self) -> None:
        """Go to the command line."""
        self._ask("", _COMMAND_HINT, lambda text: text)

    def action_filter(self) -> None:
        """Ask which exits to list."""
        self.action_pane("exits")
        text = self.painter.filter.text if self.painter.filter else ""
        self._ask(text, "condition, such as reason=CPUID; nothing for all", self._filter)

    def action_breakpoint(self) -> None:
        """Set or remove a breakpoint at the line that the cursor is on."""
        code = self.query_one("#code", Rows)
        row = code.rows[code.highlighted or 0]
        if row.address is None:
            return
        for stop in self.shell.session.stops:
            if str(stop) == f"break {row.address:#x}":
                self.carry_out(f"delete {stop.number}")
                return
        self.carry_out(f"break {row.address:#x}")

    def action_leave(self) -> None:
        """Stop the guest that runs, or leave the command line."""
        if self.is_running_guest:
            self.shell.session.pause()
        self._asks = None
        self.query_one(Input).value = ""
        self.set_focus(self.query_one("#code", Rows))

    def _ask(self, text: str, hint: str, then: Callable[[str], str]) -> None:
        command = self.query_one(Input)
        command.value, command.placeholder = text, hint
        self._asks = then
        self.set_focus(command)

    def _filter(self, text: str) -> str:
        self.painter.set_filter(text)
        return ""

    @on(Input.Submitted)
    def submitted(self, event: Input.Submitted) -> None:
        """Carry out what was typed."""
        asks, self._asks = self._asks or (lambda text: text), None
        event.input.value = ""
        try:
            line = asks(event.value)
        except UsageError as error:
            self._answer(event.value, Answer([str(error)]), bad=True)
            return
        if line:
            self.action_pane("answers")
        self.set_focus(self.query_one("#code", Rows))
        self.carry_out(line)

    @on(TabbedContent.TabActivated)
    def shown(self) -> None:
        """Another pane is seen."""
        self.carry_out("")

    @on(OptionList.OptionSelected, "#rows-exits")
    def exit_selected(self, event: OptionList.OptionSelected) -> None:
        """Go to the exit that was clicked, or on which Enter was pressed."""
        row = self.query_one("#rows-exits", Rows).rows[event.option_index]
        if row.exit is not None:
            self.carry_out(f"goto exit {row.exit}")

    # ---- the worker ----

    def carry_out(self, line: str) -> None:
        """Have the worker carry out a verb and draw; one at a time."""
        if self.is_running_guest:
            self.bell()
            return
        self.is_running_guest = True
        self.query_one("#title", Static).update(f"running: {line}   (Escape stops)" if line else "")
        self._work(line, self.query_one(TabbedContent).active or "exits")

    @work(thread=True)
    def _work(self, line: str, pane: str) -> None:
        bad = False
        try:
            answer = self.shell.execute(line)
        except UsageError as error:
            answer, bad = Answer([str(error)]), True
        picture = self.painter.paint(pane)
        self.call_from_thread(self._done, line, answer, picture, bad)

    def _done(self, line: str, answer: Answer, picture: Picture, bad: bool) -> None:
        self.is_running_guest = False
        if answer.ends:
            self.exit()
            return
        if line:
            self._answer(line, answer, bad=bad)
        self._show(picture)
        if (self.query_one(TabbedContent).active or "exits") not in {*picture.panes, "answers"}:
            self.carry_out("")  # another pane was chosen meanwhile

    def _answer(self, line: str, answer: Answer, *, bad: bool) -> None:
        self.answers.append(Row(f"> {line}", "bold"))
        self.answers += [Row(text, "red" if bad else "") for text in answer.lines]
        del self.answers[:-500]
        if bad:
            self.action_pane("answers")
        pane = self.query_one("#rows-answers", Rows)
        pane.show(self.answers)
        pane.scroll_end(animate=False)

    def _show(self, picture: Picture) -> None:
        self.query_one("#title", Static).update(picture.title)
        self.query_one("#code", Rows).show(picture.code)
        self.query_one("#code", Rows).highlighted = 1
        self.query_one("#registers", Rows).show(picture.registers)
        for name, rows in picture.panes.items():
            self.query_one(f"#rows-{name}", Rows).show(rows)
