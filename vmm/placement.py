"""Where a virtio device stands: `transport=pci|mmio` and `packed`, behind any device option."""

from dataclasses import dataclass

from vmm.disks import TransportKind
from vmm.errors import UsageError


@dataclass(frozen=True, slots=True)
class Placement:
    """How a virtio device is shown to the guest."""

    transport: TransportKind = TransportKind.PCI
    packed: bool = False


def split_placement(option: str, text: str) -> tuple[str, Placement]:
    """Take the words on placement out of `text`; return the rest and what they said."""
    rest, transport, packed = [], TransportKind.PCI, False
    for word in text.split(","):
        key, equals, value = word.partition("=")
        if key == "transport" and equals:
            if value not in list(TransportKind):
                raise UsageError(f"{option} {text!r}: {word!r} is not known; write transport=mmio")
            transport = TransportKind(value)
        elif word in ("packed", "packed=on", "packed=off"):
            packed = value != "off"
        else:
            rest.append(word)
    return ",".join(rest), Placement(transport, packed)
