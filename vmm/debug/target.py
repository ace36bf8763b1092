"""A session's VM as debuggers see it: threads, memory, registers' validity, stops in words."""

from collections.abc import Callable
from typing import Final

from hwmodel.arch.exits import ExitReason
from hwmodel.vmx.exit import Exit
from hwmodel.vmx.native import check_names
from vmm.activity import Activity
from vmm.debug.session import Session
from vmm.debug.stop import Stop, StopKind
from vmm.errors import UsageError
from vmm.symbols.guest import GuestNames, backtrace_lines
from vmm.vcpu import Vcpu
from vmm.virtual import VirtualMemory

_PAGE: Final = 4096
_MASK64: Final = (1 << 64) - 1


class Target:
    """What a front end asks for. Reading changes nothing that a guest or the clock could show."""

    def __init__(self, session: Session) -> None:
        """`physical`: addresses are guest-physical ones."""
        self.session: Final = session
        self.vm: Final = session.vm
        self.names: Final = GuestNames(session.vm.config, session.vm.plan)
        self.physical = False

    @property
    def vcpus(self) -> list[Vcpu]:
        """The virtual CPUs; a debugger's threads."""
        return self.vm.vcpus

    # ---- memory ----

    def read(self, vcpu: Vcpu, address: int, size: int) -> bytes:
        """Return what can be read of `size` bytes, up to the first that cannot; devices are not."""
        found = bytearray()
        while len(found) < size:
            at = address + len(found) & _MASK64
            part = min(size - len(found), _PAGE - at % _PAGE)
            data = self._look(vcpu, at, part)
            if data is None:
                break
            found += data
        return bytes(found)

    def _look(self, vcpu: Vcpu, address: int, size: int) -> bytes | None:
        if not self.physical:
            return VirtualMemory(vcpu).look(address, size)
        try:
            return self.vm.memory.read(address, size)
        except UsageError:
            return None

    def write(self, vcpu: Vcpu, address: int, data: bytes) -> None:
        """Write memory, whatever the guest's page tables permit. Raises UsageError where none is,
        with nothing written, and in the past.
        """
        self.refuse_in_the_past()
        if len(self.read(vcpu, address, len(data))) < len(data):
            raise UsageError(f"not all of {len(data)} bytes at {address:#x} are memory")
        done = 0
        while done < len(data):
            at = address + done & _MASK64
            part = data[done : done + _PAGE - at % _PAGE]
            if self.physical:
                self.vm.memory.write(at, part)
            else:
                VirtualMemory(vcpu).write(at, part)
            done += len(part)
        self.session.changed()

    def set_state(self, vcpu: Vcpu, write: Callable[[], None]) -> None:
        """Write registers of a virtual CPU by calling `write`.

        Raises UsageError, with everything as it was, if the processor could not be entered with
        them, and in the past.
        """
        self.refuse_in_the_past()
        pcpu, vmcs = vcpu.pcpu, vcpu.vmcs
        pcpu.sync(vmcs)
        saved, before = vmcs.save(), self._failing(vcpu)
        write()
        pcpu.sync(vmcs)
        pcpu.forget(vmcs)
        if wrong := self._failing(vcpu) - before:
            vmcs.restore(saved)
            raise UsageError(f"no VM entry is possible with that: {min(wrong)}")
        pcpu.flush_tlb()
        vcpu.look_for_events = True
        self.session.changed()

    @staticmethod
    def _failing(vcpu: Vcpu) -> set[str]:
        return {
            name
            for index, name in enumerate(check_names())
            if not vcpu.pcpu.check_passes(vcpu.vmcs, index)
        }

    def refuse_in_the_past(self) -> None:
        """Raise UsageError unless the present is the latest moment of the run."""
        if self.session.is_in_the_past:
            raise UsageError(
                "this is the past; `history fork` makes it the present and forgets what came after"
            )

    # ---- words ----

    def mode_text(self, vcpu: Vcpu) -> str:
        """Say what a virtual CPU does: mode, privilege level, whether it runs."""
        running = vcpu is self.session.vcpu and vcpu.activity is Activity.RUNNING
        waits = vcpu.activity is Activity.RUNNING and not running
        activity = "preempted" if waits else vcpu.activity.value
        root = (
            "in root mode" if vcpu is self.session.vcpu and self.session.open_exit else "non-root"
        )
        return f"{vcpu.mode()}, CPL {vcpu.cpl()}, {root}, {activity}"

    def last_exit(self, vcpu: Vcpu) -> Exit | None:
        """Return the newest exit, if it was this virtual CPU's (the only one's, or the current)."""
        if len(self.vcpus) > 1 and vcpu is not self.session.vcpu:
            return None
        if self.session.open_exit is not None:
            return self.session.open_exit
        newest = self.vm.pcpu.last_exits(1)
        return newest[0] if newest else None

    def stop_text(self, stop: Stop) -> str:
        """Say why it stopped, in one line."""
        match stop.kind:
            case StopKind.EXIT if stop.vmexit is not None:
                return exit_text(stop.vmexit)
            case StopKind.ENDED if stop.result is not None:
                result = stop.result
                return f"the run has ended: {result.reason}" + (
                    f": {result.message}" if result.message else ""
                )
            case StopKind.BEGIN:
                return "this is the beginning of the history"
            case StopKind.WATCHPOINT:
                how = "written" if stop.writes else "read"
                return f"{stop.size} bytes at {stop.address or 0:#x} were {how}"
            case _:
                return stop.kind.value

    def report(self, stop: Stop) -> list[str]:
        """Return lines that tell of a stop: why, when, and the call chain by name."""
        vcpu = self.vcpus[stop.vcpu]
        head = f"vCPU {stop.vcpu}: {self.stop_text(stop)} ({stop.moment})"
        return [head, *self.backtrace(vcpu)]

    def backtrace(self, vcpu: Vcpu) -> list[str]:
        """Return the call chain of a virtual CPU, a line a function."""
        return backtrace_lines(self.names.backtrace(vcpu))


def exit_text(vmexit: Exit) -> str:
    """Write an exit in one line."""
    text = f"exit {vmexit.sequence:,}: {vmexit.name}, qualification {vmexit.qualification:#x}"
    if vmexit.reason == ExitReason.EPT_VIOLATION:
        text += f", gpa {vmexit.guest_physical:#x}"
    return text
