"""Stepping as an editor means it: by lines, over calls, out of functions, and back."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from vmm.debug.stop import Stop, StopKind
from vmm.debug.target import Target
from vmm.debug.view import disassemble
from vmm.vcpu import Vcpu

_STEPS_MAX: Final = 100_000
_BACK: Final = (32, 512, 8192, 65536)
"""How far to go back in search of a line's first instruction, in steps."""


class Motion:
    """Moves the session that a target is of. `glance` says whether the client wants a stop."""

    def __init__(self, target: Target, glance: Callable[[], bool]) -> None:
        """Nothing moves yet."""
        self._target: Final = target
        self._session: Final = target.session
        self._glance: Final = glance

    def _line(self, vcpu: Vcpu) -> str:
        """Return what a step stays on: the source line, or the instruction where there is none."""
        pc = vcpu.linear_rip()
        line = self._target.names.settle(vcpu).line_at(pc)
        return str(line) if line else f"{pc:#x}"

    def step_in(self, index: int, *, by_line: bool) -> Stop:
        """Make a step, or steps until another line begins."""
        return self._until_line(index, by_line, lambda: self._session.step(vcpu=index))

    def step_over(self, index: int, *, by_line: bool) -> Stop:
        """Likewise, but functions that are called run to their end."""
        return self._until_line(index, by_line, lambda: self._over(index))

    def _until_line(self, index: int, by_line: bool, step: Callable[[], Stop]) -> Stop:
        vcpu = self._target.vcpus[index]
        line = self._line(vcpu)
        stop = step()
        for count in range(_STEPS_MAX):
            if not by_line or stop.kind is not StopKind.GOAL or self._line(vcpu) != line:
                break
            if count % 256 == 255 and self._glance():
                break
            stop = step()
        return stop

    def _over(self, index: int) -> Stop:
        vcpu = self._target.vcpus[index]
        code, sp = disassemble(vcpu, vcpu.linear_rip(), 1), vcpu.regs.rsp
        stop = self._session.step(vcpu=index)
        is_call = bool(code) and code[0].text.startswith(("call", "lcall"))
        if stop.kind is not StopKind.GOAL or not is_call or vcpu.regs.rsp >= sp:
            return stop
        return self._run_to(code[0].address + len(code[0].code), lambda: vcpu.regs.rsp >= sp)

    def step_out(self, index: int) -> Stop:
        """Run until the function of a virtual CPU has returned."""
        vcpu = self._target.vcpus[index]
        frames = self._target.names.backtrace(vcpu)
        if len(frames) < 2:
            return self._session.resume()
        caller = frames[1]
        return self._run_to(caller.pc, lambda: vcpu.regs.rsp >= caller.sp)

    def _run_to(self, address: int, is_there: Callable[[], bool]) -> Stop:
        number = self._session.break_at(address).number
        try:
            while True:
                stop = self._session.resume()
                if stop.number != number or stop.kind is not StopKind.BREAKPOINT:
                    return stop
                if is_there():
                    return replace(stop, kind=StopKind.GOAL, number=None)
                if self._glance():
                    return replace(stop, kind=StopKind.PAUSED, number=None)
        finally:
            self._session.remove(number)

    def step_back(self, index: int, *, by_line: bool) -> Stop:
        """Take a step back, or go to the first instruction of the line before, over calls."""
        if not by_line:
            return self._session.reverse_step(1, vcpu=index)
        vcpu, session = self._target.vcpus[index], self._session
        here, starts, sp = session.now.steps, list[int](), vcpu.regs.rsp
        for distance in _BACK:
            session.goto_step(max(here - distance, 0))
            starts = self._line_starts(vcpu, here, sp)
            if len(starts) > 1 or session.checkpoints.first.moment.steps >= here - distance:
                break
        return session.goto_step(starts[-1] if starts else here)

    def _line_starts(self, vcpu: Vcpu, end: int, sp: int) -> list[int]:
        """Walk up to `end`; return the steps before it at which a line began.

        Functions that are called meanwhile, whose stack is below `sp`, do not count.
        """
        session, starts, line = self._session, list[int](), ""
        while session.now.steps < end:
            is_inside = vcpu.regs.rsp < sp
            here, before = line if is_inside else self._line(vcpu), session.now.steps
            if here != line:
                starts.append(before)
                line = here
            session.goto_step(before + 1)
            if session.now.steps == before:
                break
        return starts
