"""Snapshot mode: writes are kept in memory, the image below stays as it is."""

from collections.abc import Mapping
from typing import Final

from vmm.storage.image import Image, Pieces, Views, clear, scatter, total

BLOCK: Final = 4096
_ZERO: Final = bytes(BLOCK)
_AT_ONCE: Final = 1 << 20
"""Bytes that are copied together; a guest may hand over as many as it has memory, and more."""


class Overlay:
    """An image over another one, which is never written."""

    def __init__(self, below: Image) -> None:
        """`below` is read where nothing was written."""
        self._below: Final = below
        self.size = below.size
        self.read_only = False
        self._blocks: dict[int, bytes] = {}
        self._saved: tuple[list[int], bytes] | None = None

    def read(self, offset: int, views: Views) -> None:
        """Fill `views` from the blocks written, and from below."""
        if not self._blocks:
            self._below.read(offset, views)
            return
        pieces, left = Pieces(views), total(views)
        while left:
            size, block = self._run(offset, left)
            part = pieces.take(size)
            if block is None:
                self._below.read(offset, part)
            else:
                scatter(memoryview(block)[offset % BLOCK :], part)
            offset, left = offset + size, left - size

    def write(self, offset: int, views: Views) -> None:
        """Keep `views`, by blocks of 4 KiB."""
        self._saved = None
        pieces, end = Pieces(views), offset + total(views)
        while offset < end:
            size = min(_AT_ONCE - offset % BLOCK, end - offset)
            self._keep(offset, memoryview(b"".join(pieces.take(size))))
            offset += size

    def _keep(self, offset: int, data: memoryview) -> None:
        at = 0
        while at < len(data):
            number, start = divmod(offset + at, BLOCK)
            part = data[at : at + BLOCK - start]
            if len(part) == BLOCK:
                self._blocks[number] = bytes(part)
            else:
                block = bytearray(self._block(number))
                block[start : start + len(part)] = part
                self._blocks[number] = bytes(block)
            at += len(part)

    def zero(self, offset: int, size: int, *, unmap: bool) -> None:
        """Keep zeroes."""
        del unmap
        self._saved = None
        end = offset + size
        while offset < end:
            number, start = divmod(offset, BLOCK)
            part = min(BLOCK - start, end - offset)
            if part == BLOCK:
                self._blocks[number] = _ZERO
            else:
                block = self._block(number)
                self._blocks[number] = block[:start] + bytes(part) + block[start + part :]
            offset += part

    def discard(self, offset: int, size: int) -> None:
        """Nothing: what was there may still be read."""

    def flush(self) -> None:
        """Nothing: nothing is meant to stay."""

    def close(self) -> None:
        """Forget what was written."""
        self._below.close()

    def save(self) -> tuple[list[int], bytes]:
        """Return the numbers of the blocks written and their contents, one after the other."""
        if self._saved is None:
            numbers = sorted(self._blocks)
            self._saved = numbers, b"".join(self._blocks[number] for number in numbers)
        return self._saved

    def restore(self, numbers: list[int], data: bytes) -> None:
        """Take over what save() returned."""
        if self._saved is not None and numbers == self._saved[0] and data is self._saved[1]:
            return
        places = range(0, len(data), BLOCK)
        self._blocks = {n: data[at : at + BLOCK] for n, at in zip(numbers, places, strict=True)}
        self._saved = numbers, data

    def _run(self, offset: int, left: int) -> tuple[int, bytes | None]:
        """Return how far one source goes from `offset`, and the block if it is ours."""
        number = offset // BLOCK
        block = self._blocks.get(number)
        size = BLOCK - offset % BLOCK
        if block is None:
            while size < left and (number := number + 1) not in self._blocks:
                size += BLOCK
        return min(size, left), block

    def _block(self, number: int) -> bytes:
        known = self._blocks.get(number)
        if known is not None:
            return known
        data = bytearray(BLOCK)
        view = memoryview(data)[: min(BLOCK, self.size - number * BLOCK)]
        clear([view])
        self._below.read(number * BLOCK, [view])
        return bytes(data)


def media_of(image: Image) -> dict[str, object]:
    """Return what was written in snapshot mode; nothing of an image that keeps it itself."""
    if not isinstance(image, Overlay):
        return {}
    numbers, data = image.save()
    return {"blocks": numbers, "data": data}


def restore_media(image: Image, state: Mapping[str, object]) -> None:
    """Take over what media_of() returned."""
    if isinstance(image, Overlay):
        numbers, data = state["blocks"], state["data"]
        assert isinstance(numbers, list)
        assert isinstance(data, bytes)
        image.restore(numbers, data)
