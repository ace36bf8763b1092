"""Packets with a name: q..., Q... and v..."""

from typing import TYPE_CHECKING, Final

from vmm.gdb import memory
from vmm.gdb.description import memory_map_xml, target_xml, threads_xml
from vmm.gdb.monitor import run_monitor
from vmm.gdb.packets import PACKET_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.gdb.stub import Answer, Stub

STEP_ENABLE, STEP_NOIRQ, STEP_NOTIMER = 1, 2, 4
STEP_DEFAULT: Final = STEP_ENABLE | STEP_NOIRQ | STEP_NOTIMER
"""As QEMU: a single step does not end in an interrupt's handler."""
_FEATURES: Final = (
    b"PacketSize=%x;qXfer:features:read+;qXfer:memory-map:read+;qXfer:threads:read+;"
    b"QStartNoAckMode+;multiprocess+;swbreak+;hwbreak+;vContSupported+;ConditionalBreakpoints+;"
    b"ReverseStep+;ReverseContinue+;binary-upload+" % PACKET_SIZE
)


def name_of(payload: bytes) -> bytes:
    """Return the name of a packet, up to its arguments; empty if it has none."""
    best = b""
    for name in COMMANDS:
        if payload.startswith(name) and len(name) > len(best):
            rest = payload[len(name) :]
            if name[-1:] in b":." or rest[:1] in (b"", b":", b";", b",", b"?", b"="):
                best = name
    return best


def _supported(stub: "Stub", words: bytes) -> "Answer":
    offers = words.strip(b":").split(b";")
    stub.offers = {offer[:-1] for offer in offers if offer.endswith(b"+")}
    return _FEATURES


def _no_ack(stub: "Stub", _words: bytes) -> "Answer":
    stub.is_reliable = True
    return b"OK"


def _xfer(text: str, words: bytes) -> "Answer":
    """Return `OFFSET,LENGTH` of a text: `m` and a piece, or `l` and the last one."""
    at, _, size = words.partition(b",")
    offset, length = int(at, 16), min(int(size, 16), PACKET_SIZE // 2)
    data = text.encode()
    if offset < 0 or length < 0 or offset > len(data):
        raise ValueError(offset)
    piece = data[offset : offset + length]
    return (b"l" if offset + length >= len(data) else b"m") + piece


def _features(_stub: "Stub", words: bytes) -> "Answer":
    annex, _, rest = words.partition(b":")
    return _xfer(target_xml(), rest) if annex == b"target.xml" else b"E00"


def _memory_map(stub: "Stub", words: bytes) -> "Answer":
    return _xfer(memory_map_xml(stub.target.vm.memory), words.partition(b":")[2])


def _threads(stub: "Stub", words: bytes) -> "Answer":
    rows = [
        (stub.thread(vcpu.index), 0, f"vCPU {vcpu.index}", stub.target.mode_text(vcpu))
        for vcpu in stub.target.vcpus
    ]
    return _xfer(threads_xml(rows), words.partition(b":")[2])


def _first_threads(stub: "Stub", _words: bytes) -> "Answer":
    return ("m" + ",".join(stub.thread(vcpu.index) for vcpu in stub.target.vcpus)).encode()


def _extra(stub: "Stub", words: bytes) -> "Answer":
    from vmm.gdb.threads import read_thread

    number = read_thread(words.strip(b","), len(stub.target.vcpus))
    vcpu = stub.target.vcpus[max(number - 1, 0)]
    return stub.target.mode_text(vcpu).encode().hex().encode()


def _monitor(stub: "Stub", words: bytes) -> "Answer":
    if not stub.has_monitor:
        return b""
    line = bytes.fromhex(words.strip(b",").decode("ascii")).decode("utf-8", "replace")
    text = run_monitor(stub, line)
    return text.encode().hex().encode() if text else b"OK"


def _set_phys(stub: "Stub", words: bytes) -> "Answer":
    if words not in (b":0", b":1"):
        raise ValueError(words)
    stub.target.physical = words == b":1"
    return b"OK"


def _set_step(stub: "Stub", words: bytes) -> "Answer":
    wanted = int(words.strip(b"="), 16)
    if wanted & ~STEP_DEFAULT:
        raise ValueError(wanted)
    stub.steps_masked = wanted
    return b"OK"


def _const(answer: bytes) -> "Callable[[Stub, bytes], Answer]":
    return lambda _stub, _words: answer


COMMANDS: "dict[bytes, Callable[[Stub, bytes], Answer]]" = {
    b"qSupported": _supported,
    b"QStartNoAckMode": _no_ack,
    b"vMustReplyEmpty": _const(b""),
    b"vCont?": _const(b"vCont;c;C;s;S;t;r"),
    b"qXfer:features:read:": _features,
    b"qXfer:memory-map:read:": _memory_map,
    b"qXfer:threads:read:": _threads,
    b"qSearch:memory:": memory.search,
    b"qfThreadInfo": _first_threads,
    b"qsThreadInfo": _const(b"l"),
    b"qThreadExtraInfo": _extra,
    b"qC": lambda stub, _words: f"QC{stub.thread(stub.general)}".encode(),
    b"qAttached": _const(b"1"),
    b"qTStatus": _const(b""),
    b"qSymbol": _const(b"OK"),
    b"qRcmd": _monitor,
    b"qqemu.PhyMemMode": lambda stub, _words: b"%d" % stub.target.physical,
    b"Qqemu.PhyMemMode": _set_phys,
    b"qqemu.sstepbits": _const(b"ENABLE=%x,NOIRQ=%x,NOTIMER=%x"
                               % (STEP_ENABLE, STEP_NOIRQ, STEP_NOTIMER)),
    b"qqemu.sstep": lambda stub, _words: b"0x%x" % stub.steps_masked,
    b"Qqemu.sstep": _set_step,
}  # fmt: skip
"""By the name up to the arguments."""
