"""Tour 1.1: put a boot plan into a VM: bytes into memory, the start state into vCPU 0."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from hwmodel.arch.model import CpuModel
from hwmodel.arch.sourced import ModelError
from hwmodel.arch.vmcs import Field
from hwmodel.cpu.pipelines import table_of
from hwmodel.pcpu import Pcpu
from hwmodel.vmx.capabilities import Capabilities
from hwmodel.vmx.state import GPR_NAMES
from vmm.activity import Activity
from vmm.apicv import pages_for_apics
from vmm.boot.files import plan_for
from vmm.boot.memmap import ram_slots
from vmm.boot.plan import BootPlan, Mode, StartState
from vmm.boot.wakeup import wakeup_state
from vmm.config import Config, Mmu, Technique, Timing
from vmm.devices.bus import port_key
from vmm.devices.platform import LINE_STATUS, SERIAL_DATA
from vmm.devices.rtc import DEFAULT_EPOCH
from vmm.errors import UsageError
from vmm.memory.guest import GuestMemory
from vmm.pv.dialect import Machine
from vmm.pv.roster import Roster, build_roster
from vmm.pv_options import types_at_xen
from vmm.vcpu import Vcpu

if TYPE_CHECKING:
    from vmm.memory.shadow.tables import ShadowTables
    from vmm.pv.xen.domain import XenPv
    from vmm.vm import VM

_PE, _PG, _ET, _NE, _PAE = 1, 1 << 31, 1 << 4, 1 << 5, 1 << 5
_LONG_EFER: Final = 1 << 8 | 1 << 10
_CODE: Final = {Mode.REAL16: 0x9B, Mode.PROT32: 0xC09B, Mode.LONG64: 0xA09B}
_DATA: Final = {Mode.REAL16: 0x93, Mode.PROT32: 0xC093, Mode.LONG64: 0xC093}
_TSS32_BUSY: Final = 0x8B
XEN_TABLES: Final = 32
"""EPT tables for the places where a guest wants to have Xen's pages."""


class Terminal(Protocol):
    """What takes what somebody types."""

    def receive(self, data: bytes) -> None:
        """Take characters."""


def model_of(name: str, timing: Timing) -> CpuModel:
    """Return the CPU model of that name or file. Raises UsageError if it cannot be had."""
    try:
        model = CpuModel.load(name)
        Capabilities.of_model(model)
        if timing is not Timing.FAST:
            table_of(model)
    except ModelError as error:
        raise UsageError(f"--cpu-model {name}: {error}") from None
    return model


def make_memory(config: Config) -> GuestMemory:
    """Return machine memory with everything that `config` has to have room in it."""
    shadows = 0
    if config.mmu is Mmu.SHADOW:
        from vmm.memory.shadow.tables import pages_for_shadows

        shadows = pages_for_shadows(config.memory)
    apics = pages_for_apics(config.cpus) if config.apicv else 0
    if "xen" not in config.dialects:
        return GuestMemory(ram_slots(config.memory), shadow_pages=shadows, apic_pages=apics)
    from vmm.pv.xen.hvm.places import HVM_PAGES

    more = apics + HVM_PAGES
    return GuestMemory(
        ram_slots(config.memory), shadow_pages=shadows, apic_pages=more, spare=XEN_TABLES
    )


def shadows_of(memory: GuestMemory, pcpu: Pcpu) -> "ShadowTables | None":
    """Return the shadow tables of a guest that has room for them; None under EPT."""
    if memory.shadow_base == memory.ram.size:
        return None
    from vmm.memory.shadow.tables import shadow_tables_of

    return shadow_tables_of(memory, pcpu)


def foundations(config: Config) -> tuple[BootPlan, GuestMemory]:
    """Plan the boot and allocate memory: a PC's, or a Xen PV domain's."""
    if config.technique is Technique.PV:
        from vmm.domain import pv_memory, pv_plan  # few runs need it

        return pv_plan(config), pv_memory(config)
    return plan_for(config), make_memory(config)


def dialects_for(vm: "VM") -> Roster:
    """Return the dialects that a guest is offered; a Xen PV domain is its own, made later."""
    clock, c = vm.clock, vm.config
    if c.technique is Technique.PV:
        return Roster()
    hz = clock.tsc_hz or clock.frequency, vm.model.crystal_hz
    machine = Machine(
        vm.memory, clock, DEFAULT_EPOCH, *hz, c.cpus, c.seed, vm.console,
        lambda reason: _shut_down(vm, reason),
    )  # fmt: skip
    return build_roster(c.dialects, machine, apicv=c.apicv)


def _shut_down(vm: "VM", reason: int) -> None:
    from vmm.domain import shut_down

    shut_down(vm, reason)


def poll_alone(vm: "VM") -> None:
    """Let the engine answer reads of a serial port's line status, half the exits of a boot, itself.

    Not where shadow tables are looked after at each exit.
    """
    if vm.memory.shadow_base != vm.memory.ram.size:
        return
    key, serial = port_key(LINE_STATUS, reads=True), vm.board.serial

    def tell(value: int) -> None:
        for pcpu in vm.pcpus:
            pcpu.ports.answer(key, value)

    serial.poll_changed = tell
    tell(serial.poll_line(0))


def say_lines(vm: "VM") -> None:
    """Let the engine collect what a serial port says, the other half: it is heard line by line.

    What is no whole line yet is heard when software is entered next: for a listener who does not
    stop the run because of what it hears.
    """
    if vm.memory.shadow_base != vm.memory.ram.size:
        return
    key, serial = port_key(SERIAL_DATA, reads=False), vm.board.serial

    def tell(sends: bool) -> None:
        for pcpu in vm.pcpus:
            pcpu.ports.collect(key if sends else None, serial.send)

    serial.sends_changed = tell
    tell(serial.just_sends())


def domain_of(vm: "VM") -> "XenPv | None":
    """Return the Xen PV domain that the VM is to be, if it is to be one."""
    if vm.config.technique is not Technique.PV:
        if "xen" in vm.config.dialects:
            from vmm.xenback.plug import plug, plug_platform

            plug(vm, vm.dialects["xen"])
            if vm.plan.protocol != "pvh":
                plug_platform(vm, vm.dialects["xen"])
        return None
    from vmm.domain import make_domain

    return make_domain(vm)


def terminal_of(vm: "VM") -> "Terminal | None":
    """Return the console that is typed at, None: the board's serial port or keyboard."""
    if vm.domain is not None:
        return vm.domain.console
    if types_at_xen(vm.config):
        xen: Any = vm.dialects["xen"]
        console: Terminal = xen.console
        return console
    return vm.peripherals.outside.terminal


def place(vm: "VM") -> BootPlan:
    """Put firmware and image into memory, and the first vCPU where it starts."""
    if vm.domain is not None:
        from vmm.domain import start_domain

        plan = load(vm)
        start_domain(vm, vm.domain)
        return plan
    for at, data in vm.peripherals.firmware():
        vm.memory.write(at, data)
    plan = load(vm)  # after the firmware, as on a PC
    start(vm.vcpus[0], plan.start)
    return plan


def load(vm: "VM") -> BootPlan:
    """Copy every placement to guest memory; return the plan without them: a kernel's are 40 MiB.

    Snapshots have whole pages of them in common with the image.
    """
    written = []
    for placement in vm.plan.placements:
        vm.memory.write(placement.gpa, placement.data)
        at = vm.memory.hpa(placement.gpa, len(placement.data))
        if at is not None:  # in one piece
            written.append((at, placement.data))
    vm.keeper.take(written)
    return replace(vm.plan, placements=())


def wake_long(vcpu: Vcpu, address: int) -> bool:
    """Start a processor that waits for SIPI, in 64-bit mode; False if it does not wait."""
    if vcpu.activity is not Activity.WAIT_FOR_SIPI:
        return False
    start(vcpu, wakeup_state(address))
    vcpu.start_waiting(Activity.RUNNING)
    return True


def start(vcpu: Vcpu, state: StartState) -> None:
    """Give a freshly reset vCPU the registers that the boot protocol promises."""
    vmcs, regs = vcpu.vmcs, vcpu.regs
    for name, value in state.gpr.items():
        regs[GPR_NAMES.index(name)] = value
    regs.rip, regs.rflags = state.rip, state.rflags | 2
    _segments(vcpu, state)
    if state.mode is Mode.REAL16:
        return
    paging = _PG if state.mode is Mode.LONG64 else 0
    vcpu.set_cr0(_PE | _ET | (_NE | paging if paging else 0))
    vcpu.set_cr4(state.cr4 | (_PAE if paging else 0))
    regs.cr3 = state.cr3
    regs.efer = _LONG_EFER if paging else 0
    vmcs[Field.GUEST_GDTR_BASE] = state.gdt.base
    vmcs[Field.GUEST_GDTR_LIMIT] = state.gdt.limit
    vmcs[Field.GUEST_TR_LIMIT] = 0x67
    vmcs[Field.GUEST_TR_AR_BYTES] = _TSS32_BUSY


def _segments(vcpu: Vcpu, state: StartState) -> None:
    limit = 0xFFFF if state.mode is Mode.REAL16 else 0xFFFF_FFFF
    for name in ("ES", "CS", "SS", "DS", "FS", "GS"):
        chosen, rights = (state.cs, _CODE) if name == "CS" else (state.ds, _DATA)
        vcpu.vmcs[Field[f"GUEST_{name}_SELECTOR"]] = chosen.selector
        vcpu.vmcs[Field[f"GUEST_{name}_BASE"]] = chosen.base
        vcpu.vmcs[Field[f"GUEST_{name}_LIMIT"]] = limit
        vcpu.vmcs[Field[f"GUEST_{name}_AR_BYTES"]] = rights[state.mode]
