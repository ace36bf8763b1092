"""Taps: what the hypervisor and its devices do, noted beside the engine's entries and exits.

A tap stands between the callers of one method of one object and that method for as long as somebody
records. Nobody recording, nothing is there: a run that is not observed pays nothing.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from hwmodel.cpu.recording import Note, Recorder
from vmm.activity import Activity
from vmm.boot.memmap import ram_slots
from vmm.config import Mmu, Technique
from vmm.devices.lapic import LocalApic
from vmm.devices.lapic_bus import Message
from vmm.sched.build import turns_of
from vmm.vcpu import Vcpu
from vmm.virtio.found import VirtioEnd, virtio_ends
from vmm.vm import VM

Write = Callable[[int, int, int, int, int], None]
"""note(kind, vCPU, a, b, c)."""

# Plain numbers: a member of an enumeration costs its conversion each time.
_ACCEPT: Final = int(Note.ACCEPT)
_EOI: Final = int(Note.EOI)
_HALT: Final = int(Note.HALT)
_IDLE: Final = int(Note.IDLE)
_KICK: Final = int(Note.KICK)
_LINE: Final = int(Note.LINE)
_MMIO_READ: Final = int(Note.MMIO_READ)
_MMIO_WRITE: Final = int(Note.MMIO_WRITE)
_MSI: Final = int(Note.MSI)
_PORT_IN: Final = int(Note.PORT_IN)
_PORT_OUT: Final = int(Note.PORT_OUT)
_SWITCH: Final = int(Note.SWITCH)
_VIRTIO_INTERRUPT: Final = int(Note.VIRTIO_INTERRUPT)
_VIRTIO_NOTIFY: Final = int(Note.VIRTIO_NOTIFY)
_WAKE: Final = int(Note.WAKE)
_TIMER_PIN: Final = 2
_NOT_THERE: Final = object()


class Taps:
    """The taps of one VM. Put in at construction, taken out by remove()."""

    def __init__(self, vm: VM, write: Write, *, plain: bool = True) -> None:
        """Note everything that `Note` names; plain accesses to devices only if `plain`."""
        self._vm: Final = vm
        self._write: Final = write
        self._put: Final[list[tuple[Any, str, object]]] = []
        if plain:
            self._all_accesses()
        else:
            self._emulated_accesses()
        for vcpu in vm.vcpus:
            self._vcpu(vcpu)
            self._apic(vcpu.index, vcpu.lapic)
        for number, end in enumerate(virtio_ends(vm.board)):
            self._virtio(number, end)
        self._lines()
        self._scheduler()

    def remove(self) -> None:
        """Take every tap out again."""
        while self._put:
            target, name, before = self._put.pop()
            if before is _NOT_THERE:
                delattr(target, name)
            else:
                setattr(target, name, before)

    def _tap(self, target: Any, name: str, tap: Callable[..., Any]) -> None:
        self._put.append((target, name, vars(target).get(name, _NOT_THERE)))
        setattr(target, name, tap)

    def _running(self) -> int:
        return self._vm.scheduler.current.index

    def _emulated_accesses(self) -> None:
        """Accesses of instructions that are emulated; the engine tells the plain ones itself."""
        emulated, write = self._vm.board.emulated, self._write
        board_in, board_out = emulated.port_in, emulated.port_out
        board_read, board_write = emulated.read, emulated.write

        def port_in(port: int, size: int) -> int:
            value = board_in(port, size)
            write(_PORT_IN, self._running(), port, size, value)
            return value

        def port_out(port: int, size: int, value: int) -> None:
            write(_PORT_OUT, self._running(), port, size, value)
            board_out(port, size, value)

        def load(cpu: int, address: int, size: int) -> int:
            value = board_read(cpu, address, size)
            write(_MMIO_READ, cpu, address, size, value)
            return value

        def store(cpu: int, address: int, size: int, value: int) -> None:
            write(_MMIO_WRITE, cpu, address, size, value & _MASK64)
            board_write(cpu, address, size, value)

        self._tap(emulated, "port_in", port_in)
        self._tap(emulated, "port_out", port_out)
        self._tap(emulated, "read", load)
        self._tap(emulated, "write", store)

    def _all_accesses(self) -> None:
        """Ports and device memory, as the handlers of exits use them; a bus calls itself too."""
        board, write, scheduler = self._vm.board, self._write, self._vm.scheduler
        ports = board.ports
        read_port, write_port = ports.read, ports.write
        read_memory, write_memory = board.read_memory, board.write_memory
        depth = 0

        def port_in(port: int, size: int) -> int:
            nonlocal depth
            depth += 1
            value = read_port(port, size)
            depth -= 1
            if not depth:
                write(_PORT_IN, scheduler.current.index, port, size, value)
            return value

        def port_out(port: int, size: int, value: int) -> None:
            nonlocal depth
            if not depth:
                write(_PORT_OUT, scheduler.current.index, port, size, value)
            depth += 1
            write_port(port, size, value)
            depth -= 1

        def load(cpu: int, address: int, size: int) -> int:
            value = read_memory(cpu, address, size)
            write(_MMIO_READ, cpu, address, size, value)
            return value

        def store(cpu: int, address: int, size: int, value: int) -> None:
            write(_MMIO_WRITE, cpu, address, size, value & _MASK64)
            write_memory(cpu, address, size, value)

        self._tap(ports, "read", port_in)
        self._tap(ports, "write", port_out)
        self._tap(board, "read_memory", load)
        self._tap(board, "write_memory", store)

    def _vcpu(self, vcpu: Vcpu) -> None:
        write, halt, start, kick = self._write, vcpu.halt, vcpu.start_waiting, vcpu.kick

        def halts() -> None:
            halt()
            if vcpu.activity is Activity.HALTED:
                write(_HALT, vcpu.index, 0, 0, 0)

        def starts(activity: Activity) -> None:
            start(activity)
            if activity is Activity.RUNNING:
                write(_WAKE, vcpu.index, 0, 0, 0)

        def kicks() -> None:
            write(_KICK, self._running(), vcpu.index, 0, 0)
            kick()

        self._tap(vcpu, "halt", halts)
        self._tap(vcpu, "start_waiting", starts)
        self._tap(vcpu, "kick", kicks)

    def _apic(self, cpu: int, lapic: LocalApic) -> None:
        write, accept, end = self._write, lapic.accept, lapic.end

        def accepts(message: Message) -> bool:
            write(_ACCEPT, cpu, message.mode, message.vector, message.level_triggered)
            return accept(message)

        def ends(vector: int) -> None:
            write(_EOI, cpu, vector, 0, 0)
            end(vector)

        self._tap(lapic, "accept", accepts)
        self._tap(lapic, "end", ends)

    def _lines(self) -> None:
        ioapic, pci, write = self._vm.board.ioapic, self._vm.board.pci, self._write
        set_pin, message = ioapic.set_pin, pci.message

        def pin(number: int, level: bool) -> None:
            line = 0 if number == _TIMER_PIN else number
            write(_LINE, self._running(), line, level, 0)
            set_pin(number, level)

        def sends(address: int, data: int) -> None:
            write(_MSI, self._running(), address & _MASK64, data & _MASK64, 0)
            message(address, data)

        self._tap(ioapic, "set_pin", pin)
        self._tap(pci, "message", sends)

    def _virtio(self, number: int, end: VirtioEnd) -> None:
        write, notify, interrupt = self._write, end.device.notify, end.transport.queue_interrupt

        def notifies(queue: int) -> None:
            write(_VIRTIO_NOTIFY, self._running(), number, queue & _MASK64, 0)
            notify(queue)

        def interrupts(queue: int) -> None:
            write(_VIRTIO_INTERRUPT, self._running(), number, queue, 0)
            interrupt(queue)

        self._tap(end.device, "notify", notifies)
        self._tap(end.transport, "queue_interrupt", interrupts)

    def _scheduler(self) -> None:
        scheduler = turns_of(self._vm.scheduler)
        write, clock = self._write, self._vm.clock
        switch, pass_time = scheduler.switch, scheduler.pass_time

        def switches(vcpu: Vcpu) -> None:
            write(_SWITCH, self._running(), scheduler.current.index, vcpu.index, 0)
            switch(vcpu)

        def passes(event: int | None, limit: int) -> bool:
            before = clock.now
            going = pass_time(event, limit)
            if clock.now != before:
                write(_IDLE, self._running(), clock.now - before, 0, 0)
            return going

        self._tap(scheduler, "switch", switches)
        self._tap(scheduler, "pass_time", passes)


_MASK64: Final = (1 << 64) - 1


def virtio_names(vm: VM) -> Iterator[str]:
    """Yield the names of the virtio devices, by the numbers that notes give them."""
    for end in virtio_ends(vm.board):
        yield end.device.name


def derive_in(vm: VM, recorder: Recorder) -> bool:
    """Have the engine tell plain accesses by itself, where it can; whether it does."""
    derives = vm.config.technique is Technique.VTX and vm.config.mmu is Mmu.EPT
    if derives:
        recorder.derive([(at, at + size) for at, size in ram_slots(vm.config.memory)])
    return derives
