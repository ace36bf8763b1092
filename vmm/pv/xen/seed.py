"""What a toolstack writes into xenstore before a domU starts (docs/misc/xenstore-paths)."""

from vmm.pv.xen.abi import OWN_DOMID
from vmm.pv.xen.store import Store

_OWN = f"/local/domain/{OWN_DOMID}"


def seed(store: Store, store_frame: int, console_frame: int, frames: int, vcpus: int) -> None:
    """Seed it: identity, memory, console, control, processors. Frames are machine frames."""
    values = {
        "vm": "/vm/00010203-0405-0607-0809-0a0b0c0d0e0f", "name": "ring1", "domid": str(OWN_DOMID),
        "memory/static-max": str(frames * 4), "memory/target": str(frames * 4),
        "memory/videoram": "-1", "store/port": "1", "store/ring-ref": str(store_frame),
        "console/port": "2", "console/ring-ref": str(console_frame), "console/type": "xenconsoled",
        "console/output": "pty", "control/shutdown": "",
        "control/platform-feature-xs_reset_watches": "1",
    }  # fmt: skip
    for name, value in values.items():
        store.write(f"{_OWN}/{name}", value.encode())
    for number in range(vcpus):
        store.write(f"{_OWN}/cpu/{number}/availability", b"online")
    for name in ("device", "data", "error", "drivers", "attr", "feature", "messages"):
        store.mkdir(f"{_OWN}/{name}")
    store.write("/local/domain/0/domid", b"0")
    store.write("/local/domain/0/name", b"Domain-0")
    store.mkdir("/local/domain/0/backend")
