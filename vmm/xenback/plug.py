"""Which back ends a domain has, one for each disk and each network card of the options; and the
toolstack's plan for its store.
"""

from typing import TYPE_CHECKING, Any

from vmm.virtio.blk_timing import TIMINGS, Medium
from vmm.xenback.blkback import BlockBackend
from vmm.xenback.netback import NetBackend
from vmm.xenback.xenbus import Means

if TYPE_CHECKING:
    from vmm.vm import VM


def plug_platform(vm: "VM", dialect: Any) -> None:
    """Give a guest that enters as a PC the device by which it finds the others."""
    from vmm.xenback.platform_pci import FIRST_PORT, PORTS, PlatformPorts, XenPlatform

    function = XenPlatform()
    vm.board.ports.register(FIRST_PORT, PORTS, PlatformPorts(vm.console.write), width=4)
    vm.board.plug(function)
    dialect.pin = function.set_intx


def plug(vm: "VM", domain: Any) -> None:
    """Make the back ends; the board keeps their time and their state."""
    means = Means(domain.store, domain.ports, domain.grants, domain.shared)
    disks = zip(vm.config.disks, vm.peripherals.images, strict=True)
    for number, (disk, image) in enumerate(disks):
        medium = Medium(TIMINGS[disk.speed], vm.clock)
        block = BlockBackend(number, image, medium, means, vm.clock, vm.board.reschedule)
        vm.peripherals.media.append(block)
        vm.board.backstage.append(block)
    outside = vm.peripherals.outside
    for number, cable, mac, mtu in outside.cables():
        card = NetBackend(number, cable, mac, mtu, means, vm.clock, vm.board.reschedule)
        outside.plug_in(card, cable, vm.clock)
        vm.board.backstage.append(card)
    if vm.config.xenstore:
        from vmm.pv.xen.toolstack import Toolstack

        toolstack = Toolstack(domain.store, vm.clock, vm.config.xenstore)
        vm.peripherals.media.append(toolstack)
        vm.board.backstage.append(toolstack)
