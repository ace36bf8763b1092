"""The block device (virtio 1.2, "Block Device"): an image as a disk.

A request is taken off the ring when the driver notifies, and carried out when the medium would be
done with it; data goes between the image's file and guest memory in one call.
"""

from heapq import heappop, heappush
from struct import Struct
from typing import ClassVar, Final

from vmm.devices.device import State
from vmm.storage.image import SECTOR, Image, StorageError
from vmm.storage.overlay import media_of, restore_media
from vmm.virtio.blk_config import FLUSH, WRITES, config_space, offered
from vmm.virtio.blk_request import HEADER_SIZE, SERIAL_SIZE, Request, RequestStatus, RequestType
from vmm.virtio.blk_timing import DiskTiming, Medium
from vmm.virtio.chain import Chain
from vmm.virtio.device import Context, VirtioDevice

QUEUE_SIZE: Final = 256
_SEGMENT: Final = Struct("<QII")  # sector, sectors, flags: discard and write zeroes
_UNMAP: Final = 1
_LOGGED: Final = 20  # host errors told of; a guest can cause any number


class Blk(VirtioDevice):
    """A disk."""

    device_id: ClassVar[int] = 2

    def __init__(
        self,
        name: str,
        context: Context,
        image: Image,
        timing: DiskTiming,
        *,
        serial: str = "",
        packed: bool = False,
        queues: int = 1,
    ) -> None:
        """`serial` is what the guest reads as the disk's identity: up to 20 bytes."""
        super().__init__(
            name,
            context,
            queue_sizes=(QUEUE_SIZE,) * queues,
            features=offered(read_only=image.read_only, queues=queues),
            config=config_space(image.size, QUEUE_SIZE, queues),
            packed=packed,
        )
        self.image: Final = image
        self._serial: Final = serial.encode()[:SERIAL_SIZE].ljust(SERIAL_SIZE, b"\0")
        self._medium: Final = Medium(timing, context.clock)
        self._under_way: list[tuple[int, int, int, Chain]] = []  # (due, order, queue, chain): heap
        self._order = 0
        self._errors = 0

    # ---- requests come and go ----

    def on_queue(self, index: int) -> None:
        """Take what is there; what takes no time is done at once."""
        queue, now = self.queues[index], self.context.clock.now
        while chain := queue.pop():
            if chain.readable.size < HEADER_SIZE or not chain.writable.size:
                self.fail(f"queue {index}: a request without a header or a status byte")
                return
            self._order += 1
            heappush(self._under_way, (self._due(chain, now), self._order, index, chain))
        self.fire()

    def next_event(self) -> int | None:
        """Return when the first request is done."""
        return self._under_way[0][0] if self._under_way else None

    def fire(self) -> None:
        """Carry out what the medium is done with."""
        now, served = self.context.clock.now, set()
        while self._under_way and self._under_way[0][0] <= now:
            _, _, index, chain = heappop(self._under_way)
            if self.live:
                self.queues[index].push(chain, self._serve(chain))
                served.add(index)
        for index in sorted(served):
            self.interrupt(self.queues[index])

    def on_reset(self) -> None:
        """Forget the requests under way."""
        self._under_way.clear()
        self._medium.busy_until = 0

    def on_queue_reset(self, index: int) -> None:
        """Forget those of one queue; what is left stays sorted, which is a heap."""
        self._under_way[:] = sorted(item for item in self._under_way if item[2] != index)

    def _due(self, chain: Chain, now: int) -> int:
        request = Request.of(chain)
        if request.kind is RequestType.FLUSH:
            return self._medium.flushed_at(now)
        write = request.kind in WRITES
        size = chain.readable.size if write else chain.writable.size
        return self._medium.done_at(now, size, write=write)

    # ---- one request ----

    def _serve(self, chain: Chain) -> int:
        """Carry out a request; return the bytes written to the guest."""
        request = Request.of(chain)
        try:
            status = self._carry_out(request)
        except StorageError as error:
            self._complain(str(error))
            status = RequestStatus.IO_ERROR
        chain.writable.write(chain.writable.size - 1, bytes([status]))
        return chain.writable.size

    def _carry_out(self, request: Request) -> RequestStatus:
        match request.kind:
            case RequestType.IN:
                return self._read(request)
            case RequestType.GET_ID:
                return self._identify(request)
            case RequestType.FLUSH:
                if not self.image.read_only:
                    self.image.flush()
                return RequestStatus.OK
            case RequestType.OUT:
                return self._change(self._write(request))
            case RequestType.DISCARD | RequestType.WRITE_ZEROES:
                return self._change(self._ranges(request))
            case _:
                return RequestStatus.UNSUPPORTED

    def _change(self, status: RequestStatus) -> RequestStatus:
        """A driver that does not know of flushes is promised that what is done is durable."""
        if status is RequestStatus.OK and not self.has(FLUSH):
            self.image.flush()
        return status

    def _read(self, request: Request) -> RequestStatus:
        data = request.answer
        if not self._within(request.sector, data.size):
            return RequestStatus.IO_ERROR
        try:
            self.image.read(request.sector * SECTOR, data.views())
        finally:
            data.wrote()  # a part of it may be there
        return RequestStatus.OK

    def _write(self, request: Request) -> RequestStatus:
        data = request.payload
        if self.image.read_only or not self._within(request.sector, data.size):
            return RequestStatus.IO_ERROR
        self.image.write(request.sector * SECTOR, data.views())
        return RequestStatus.OK

    def _identify(self, request: Request) -> RequestStatus:
        if request.answer.size < SERIAL_SIZE:
            return RequestStatus.IO_ERROR
        request.answer.write(0, self._serial)
        return RequestStatus.OK

    def _ranges(self, request: Request) -> RequestStatus:
        """Discard or clear the ranges that the payload lists, all of them or none."""
        if self.image.read_only:
            return RequestStatus.IO_ERROR
        size, zeroes = request.payload.size, request.kind is RequestType.WRITE_ZEROES
        if not size or size % _SEGMENT.size or size > request.most_ranges * _SEGMENT.size:
            return RequestStatus.IO_ERROR
        ranges = list(_SEGMENT.iter_unpack(request.payload.read()))
        for sector, sectors, flags in ranges:
            if flags & ~(_UNMAP if zeroes else 0):
                return RequestStatus.UNSUPPORTED
            if sectors > request.most_sectors or not self._within(sector, sectors * SECTOR):
                return RequestStatus.IO_ERROR
        for sector, sectors, flags in ranges:
            if zeroes:
                unmap = bool(flags & _UNMAP)
                self.image.zero(sector * SECTOR, sectors * SECTOR, unmap=unmap)
            else:
                self.image.discard(sector * SECTOR, sectors * SECTOR)
        return RequestStatus.OK

    def _within(self, sector: int, size: int) -> bool:
        return size % SECTOR == 0 and sector * SECTOR + size <= self.image.size

    def _complain(self, what: str) -> None:
        self._errors += 1
        if self._errors <= _LOGGED:
            self.context.log(f"disk {self.name}: {what}")

    # ---- state ----

    def save_device(self) -> State:
        """Return requests under way, and in snapshot mode what was written."""
        flat = [
            number
            for due, order, index, chain in sorted(self._under_way)
            for number in (due, order, index, len(chain.save()), *chain.save())
        ]
        state: State = {"under_way": flat, "medium": [self._medium.busy_until, self._order]}
        return state | self.save_media()

    def restore_device(self, state: State) -> None:
        """Take over what save_device() returned; an image that is written stays as it is."""
        flat, medium = state["under_way"], state["medium"]
        assert isinstance(flat, list)
        assert isinstance(medium, list)
        self._under_way.clear()
        while flat:
            due, order, index, length = flat[:4]
            chain = self.queues[index].restore_chain(flat[4 : 4 + length])
            self._under_way.append((due, order, index, chain))
            flat = flat[4 + length :]
        self._medium.busy_until, self._order = medium
        self.restore_media(state)

    def save_media(self) -> State:
        """Return what was written in snapshot mode: a reset keeps it, going back does not."""
        return media_of(self.image)

    def restore_media(self, state: State) -> None:
        """Take over what save_media() returned."""
        restore_media(self.image, state)
