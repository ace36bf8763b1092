"""The terminal debugger, driven by textual's pilot: keys, mouse, 80 columns by 24 lines."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from textual.events import Key
from textual.pilot import Pilot
from textual.widgets import Input, Static, TabbedContent

from tests.images import OFF, START, elf64
from vmm import VM
from vmm.cli.debugger.app import Debugger, Rows
from vmm.debug.session import Session

GUEST = f"""
    mov rsp, 0x300000
    mov ecx, 3
again:
    mov dx, 0x3f8
    mov al, 65
    out dx, al
    push rcx
    xor eax, eax
    cpuid
    pop rcx
    loop again
    mov al, 10
    mov dx, 0x3f8
    out dx, al
    {OFF}
"""

Script = Callable[[Debugger, Pilot[None]], Awaitable[None]]


def drive(script: Script, size: tuple[int, int] = (80, 24)) -> None:
    async def run(app: Debugger) -> None:
        async with app.run_test(size=size) as pilot:
            await settle(app, pilot)
            await script(app, pilot)

    with VM(elf64(GUEST), memory="4M") as vm:
        asyncio.run(run(Debugger(Session(vm))))


async def settle(app: Debugger, pilot: Pilot[None]) -> None:
    for _ in range(3):
        await app.workers.wait_for_complete()
        await pilot.pause()


async def press(app: Debugger, pilot: Pilot[None], *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await settle(app, pilot)


def text(app: Debugger, pane: str) -> str:
    return "\n".join(row.text for row in app.query_one(f"#{pane}", Rows).rows)


def title(app: Debugger) -> str:
    return str(app.query_one("#title", Static).content)


def test_single_keys_go_forwards_and_backwards() -> None:
    async def script(app: Debugger, pilot: Pilot[None]) -> None:
        assert f"{START:x} mov rsp" in text(app, "code")
        await press(app, pilot, "s", "s")
        assert "step 2 " in title(app)
        await press(app, pilot, "S")
        assert "step 1 " in title(app)
        assert "PAST" in title(app)
        await press(app, pilot, "n", "n")
        assert "exit 2 open" in title(app)
        assert "CPUID" in text(app, "rows-exits")
        await press(app, pilot, "N")
        assert "exit 1 open" in title(app)
        await press(app, pilot, "f")
        assert "exit 1 " in title(app)
        assert "open" not in title(app)
        await press(app, pilot, "c")
        assert app.shell.vm.is_stopped()
        await press(app, pilot, "C")
        assert "step 0 " in title(app)

    drive(script)


def test_panes_show_what_they_are_for() -> None:
    async def script(app: Debugger, pilot: Pilot[None]) -> None:
        await press(app, pilot, "n", "n", "2")
        assert "GUEST_RIP" in text(app, "rows-vmcs").split("fields changed")[1]
        assert "->" in text(app, "rows-vmcs")
        await press(app, pilot, "3")
        assert "PML4E" in text(app, "rows-walk")
        assert "EPT L4" in text(app, "rows-walk")
        await press(app, pilot, "4")
        assert "guest" in text(app, "rows-machine")
        assert "checkpoints take" in text(app, "rows-machine")
        await press(app, pilot, "5", "c")
        assert "AAA" in text(app, "rows-console")
        await press(app, pilot, "N", "N", "N", "N")
        assert "AAA" not in text(app, "rows-console")

    drive(script)


def test_the_command_line_has_the_verbs() -> None:
    async def script(app: Debugger, pilot: Pilot[None]) -> None:
        await press(app, pilot, "colon", *"goto exit 3", "enter")
        assert "exit 3 open" in title(app)
        await press(app, pilot, "colon", *"exit-break bogus", "enter")
        assert "no name 'bogus'" in text(app, "rows-answers")
        assert "column 1" in text(app, "rows-answers")
        await press(app, pilot, "slash", *"reason=CPUID", "enter")
        assert app.query_one(TabbedContent).active == "exits"
        assert "IO_INSTRUCTION" not in text(app, "rows-exits")
        assert "CPUID" in text(app, "rows-exits")
        await press(app, pilot, "colon", "escape")
        assert not app.query_one(Input).has_focus

    drive(script)


def test_a_pasted_verb_is_a_verb_and_not_keys() -> None:
    async def script(app: Debugger, pilot: Pilot[None]) -> None:
        await settle(app, pilot)
        for key in ("colon", *"goto exit 3", "enter"):
            app.post_message(Key({" ": "space"}.get(key, key), key if len(key) == 1 else None))
        await settle(app, pilot)
        assert "exit 3 open" in title(app)

    drive(script)


def test_the_mouse_works() -> None:
    async def script(app: Debugger, pilot: Pilot[None]) -> None:
        await press(app, pilot, "c")
        await pilot.click("#rows-exits", offset=(4, 3))
        await settle(app, pilot)
        assert "open" in title(app)
        await pilot.click(app.query_one("#code"), offset=(4, 2))
        await press(app, pilot, "b")
        assert len(list(app.shell.session.stops)) == 1
        await press(app, pilot, "down", "b")
        assert len(list(app.shell.session.stops)) in (0, 2)

    drive(script)


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
def test_everything_is_in_sight(size: tuple[int, int]) -> None:
    async def script(app: Debugger, pilot: Pilot[None]) -> None:
        await press(app, pilot, "n")
        for name, lines in (("code", 6), ("registers", 6), ("rows-exits", 3)):
            region = app.query_one(f"#{name}").region
            assert region.height >= lines, name
            assert region.right <= size[0]
        assert app.query_one(Input).region.bottom <= size[1]

    drive(script, size)


def test_leaving() -> None:
    async def script(app: Debugger, pilot: Pilot[None]) -> None:
        await press(app, pilot, "colon", *"quit", "enter")
        assert not app.is_running

    drive(script)
