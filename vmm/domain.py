"""A VM that is a Xen PV domain: its memory, its boot plan, and the domain put together and started.

`vmm.vm` calls these in place of what a PC needs; the board stays, for its clockwork of events.
"""

from typing import TYPE_CHECKING, Final

from hwmodel.cpu.xen import layout_of
from vmm.boot.files import read_file
from vmm.boot.plan import BootPlan
from vmm.boot.request import BootModule, BootRequest
from vmm.boot.xen.builder import Domain, plan_pv
from vmm.config import Config
from vmm.devices.rtc import DEFAULT_EPOCH
from vmm.errors import UsageError
from vmm.memory.pseudo import PseudoPhysical, permutation
from vmm.outcome import StopReason
from vmm.pv.dialect import Machine
from vmm.pv.roster import Roster
from vmm.pv.xen.domain import Outlets, Start, XenPv
from vmm.pv.xen.guest import GuestCpu
from vmm.pv.xen.sched_op import Shutdown
from vmm.vcpu import Vcpu

if TYPE_CHECKING:
    from vmm.vm import VM

PAGE: Final = 4096
_NAMES: Final = {Shutdown.POWEROFF: "poweroff", Shutdown.REBOOT: "reboot"}


def pv_memory(config: Config) -> PseudoPhysical:
    """Allocate machine memory: the guest's frames, and Xen's own behind them."""
    frames = config.memory // PAGE
    more = layout_of(frames, config.cpus).end - frames
    return PseudoPhysical(frames, more, identity=config.pv_identity)


def pv_plan(config: Config) -> BootPlan:
    """Read the image and its modules, and plan a PV start; errors name the file."""
    if config.image is None:
        raise UsageError("--technique pv has no demo; name a kernel with CONFIG_XEN_PV")
    image = config.image
    data = image if isinstance(image, bytes) else read_file(image, "image")
    modules = tuple(
        BootModule(m.path.name, read_file(m.path, "--initrd"), m.cmdline) for m in config.initrds
    )
    frames = config.memory // PAGE
    domain = Domain(
        permutation(frames, identity=config.pv_identity), layout_of(frames, config.cpus)
    )
    try:
        return plan_pv(data, BootRequest(config.memory, config.cmdline, modules=modules), domain)
    except UsageError as error:
        name = "image" if isinstance(image, bytes) else image
        raise type(error)(f"{name}: {error}") from error


def make_domain(vm: "VM") -> XenPv:
    """Make the domain, and hang its timers on the board."""
    config, clock = vm.config, vm.clock
    assert isinstance(vm.memory, PseudoPhysical)
    tsc_hz = clock.tsc_hz or clock.frequency
    machine = Machine(vm.memory, clock, DEFAULT_EPOCH, tsc_hz, vm.model.crystal_hz, config.cpus)
    out = Outlets(vm.console.write, lambda reason: shut_down(vm, reason), vm.board.reschedule)
    layout = layout_of(vm.memory.frames, config.cpus)
    domain = XenPv(machine, vm.pcpu, vm.memory, layout, out)
    vm.board.backstage.append(domain.timers)
    if config.has_toolstack():
        from vmm.xenback.plug import plug  # few runs need it

        plug(vm, domain)
    vm.dialects = Roster((domain,))
    return domain


def start_domain(vm: "VM", domain: XenPv) -> None:
    """Load the first vCPU as the plan says; the image lies in memory."""
    domain.attach_cpus([_cpu(vcpu) for vcpu in vm.vcpus])
    state = vm.plan.start
    info, base = state.gpr["rsi"], state.gpr["rsi"] & -PAGE
    pages = vm.plan.pv_pages
    start = Start(state.cr3 // PAGE, state.rip, state.gpr["rsp"], info, *pages)
    assert base == info
    if error := domain.start(start):
        raise UsageError(f"the guest's boot page tables are refused (error {-error})")


def _cpu(vcpu: Vcpu) -> GuestCpu:
    return GuestCpu(
        vcpu.index, vcpu.pcpu, vcpu.vmcs, vcpu.wake, vcpu.park, vcpu.unpark, lambda: None
    )


def shut_down(vm: "VM", reason: int) -> None:
    """SCHEDOP_shutdown: the guest says why."""
    if reason == Shutdown.POWEROFF:
        vm.stop(StopReason.POWEROFF)
    elif reason == Shutdown.REBOOT:
        vm.reset()
    else:
        names = {int(item): item.name.lower() for item in Shutdown}
        vm.stop(StopReason.TRIPLE_FAULT, f"the domain ended: {names.get(reason, reason)}")
