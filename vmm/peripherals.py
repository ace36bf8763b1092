"""The devices that options ask for: files opened, devices made, put into the board."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from vmm.boardmap import VIRTIO_MMIO, VIRTIO_MMIO_LINES
from vmm.boot.memmap import ram_slots
from vmm.boot.wakeup import wakeup_tables
from vmm.config import Config, Technique, Wakeup
from vmm.devices.device import Clock, State
from vmm.devices.platform import Board
from vmm.disks import Disk, TransportKind
from vmm.errors import UsageError
from vmm.firmware.bios_data import bios_data, interrupt_vectors
from vmm.firmware.build import build_tables
from vmm.firmware.description import Description, MmioDevice
from vmm.firmware.numa import distances, divide
from vmm.host.sources import Door, HostSources
from vmm.memory.guest import GuestMemory
from vmm.outside import Outside
from vmm.storage.image import StorageError

if TYPE_CHECKING:
    from vmm.storage.image import Image
    from vmm.virtio.blk import Blk
    from vmm.virtio.device import Context, VirtioDevice

LOGGED: Final = 200  # lines; a guest can cause any number


class Media(Protocol):
    """A disk, as a reset sees it."""

    def save_media(self) -> State:
        """Return what a reset keeps."""

    def restore_media(self, state: State) -> None:
        """Take over what save_media() returned."""


class Peripherals:
    """What a VM has beside the board's own devices, and the files behind them."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        sources: HostSources,
        *,
        log: Callable[[str], None],
        screen: Door,
    ) -> None:
        """Open every file. Raises UsageError, with all files closed again, if one cannot be.

        `screen` shows what a console on the terminal says.
        """
        self._config: Final = config
        self._log: Final = log
        self._logged = 0
        self._mmio: list[MmioDevice] = []
        self._images: list[Image] = []
        self._outside: Outside | None = None
        self.disks: list[Blk] = []
        self.media: list[Media] = []
        """Disks of another kind than virtio's."""
        try:
            for disk in config.disks:
                self._images.append(_open(disk))
            self._outside = Outside(config, clock, sources, screen)
        except UsageError:
            self.close()
            raise

    @property
    def outside(self) -> Outside:
        """The devices with an end on the host."""
        assert self._outside is not None
        return self._outside

    @property
    def images(self) -> "tuple[Image, ...]":
        """The disks' files, opened."""
        return tuple(self._images)

    def plug(self, board: Board, memory: GuestMemory, clock: Clock) -> None:
        """Make the devices and put them into `board`. Raises UsageError when it is full."""
        if self._config.technique is Technique.PV:  # whose devices are back ends
            return
        disks = () if self._config.has_xen_devices() else self._config.disks
        if not (disks or self.outside.has_devices()):
            return
        from vmm.virtio.device import Context

        context = Context(memory, clock, self.log, board.reschedule)
        for number, (disk, image) in enumerate(zip(disks, self._images, strict=False)):
            self.disks.append(_disk(context, number, disk, image))
            self.attach(board, self.disks[-1], disk.transport)
        cards = not self._config.has_xen_devices()
        for device, place in self.outside.devices(context, cards=cards):
            self.attach(board, device, place.transport)

    def attach(self, board: Board, device: "VirtioDevice", kind: TransportKind) -> None:
        """Show a virtio device by PCI, or by registers in memory. Raises UsageError if full."""
        from vmm.virtio.mmio import MMIO_SIZE, MmioTransport
        from vmm.virtio.pci import VirtioPci

        if kind is TransportKind.PCI:
            board.plug(VirtioPci(device))
            return
        number = len(self._mmio)
        if number >= len(VIRTIO_MMIO_LINES):
            raise UsageError(f"no line is left for {device.name} over MMIO; use transport=pci")
        base, line = VIRTIO_MMIO[0] + number * MMIO_SIZE, VIRTIO_MMIO_LINES[number]
        transport = MmioTransport(device, board.lines.source(line), device.name)
        board.memory.register(base, MMIO_SIZE, transport)
        self._mmio.append(MmioDevice(base, MMIO_SIZE, line))

    def firmware(self) -> Iterator[tuple[int, bytes]]:
        """Yield (address, bytes) of what firmware leaves in memory."""
        config, nodes = self._config, self._config.numa
        has_mailbox = config.wakeup is Wakeup.MAILBOX
        described = Description(config.cpus, tuple(self._mmio), has_mailbox=has_mailbox)
        if nodes > 1:
            shares = divide(nodes, config.cpus, ram_slots(config.memory))
            described = replace(described, nodes=shares, distances=distances(nodes))
        data, rsdp = build_tables(described)
        yield rsdp, data
        yield bios_data()
        yield from interrupt_vectors()
        if has_mailbox:
            yield wakeup_tables()

    def log(self, line: str) -> None:
        """Pass a device's complaint on, unless there were too many."""
        self._logged += 1
        if self._logged <= LOGGED:
            self._log(line)

    @contextmanager
    def kept_media(self) -> Iterator[None]:
        """While the board goes back to its power-on state: what is on the disks stays, and random
        bytes are not drawn a second time.
        """
        media = [disk.save_media() for disk in (*self.disks, *self.media)]
        with self.outside.kept_entropy():
            yield
        for disk, kept in zip((*self.disks, *self.media), media, strict=True):
            disk.restore_media(kept)

    def close(self) -> None:
        """Flush and close every file; what could not be written is said."""
        while self._images:
            try:
                self._images.pop().close()
            except StorageError as error:
                self._log(f"not all of a disk could be written: {error}")
        if self._outside is not None:
            self._outside.close()


def _disk(context: "Context", number: int, disk: Disk, image: "Image") -> "Blk":
    from vmm.virtio.blk import Blk
    from vmm.virtio.blk_timing import TIMINGS

    return Blk(
        f"disk{number}", context, image, TIMINGS[disk.speed],
        serial=disk.serial or f"ring1-{number}", packed=disk.packed, queues=disk.queues,
    )  # fmt: skip


def _open(disk: Disk) -> "Image":
    from vmm.storage.opening import open_image

    kind = None if disk.format is None else str(disk.format)
    return open_image(disk.path, kind=kind, read_only=disk.readonly, snapshot=disk.snapshot)
