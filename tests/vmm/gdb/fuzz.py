"""Fuzzes what faces gdb's socket: the decoder, and every command behind it.

    python -m tests.vmm.gdb.fuzz 1000000      a million streams, some minutes

A stream is made of packets, halves of them, noise, changed and repeated bytes, and comes in pieces.
The decoder is held against a second one, written from the manual in the dullest way; the commands
must answer, raise nothing, and (those that only read) leave the guest's digest as it was.
"""

import random
import sys

from vmm.gdb.packets import Decoder, Packet, Signal, frame

WORDS = [
    b"g", b"G00", b"?", b"p10", b"p-1", b"P10=00", b"P10=0000000000000000", b"m0,10", b"x0,4",
    b"mffffffffffffffff,8", b"m-1,-1", b"M1000,2:0102", b"X1000,1:}]", b"X0,0:", b"Hg0", b"Hc-1",
    b"Hgp1.1", b"T1", b"Tp1.9", b"qSupported:multiprocess+;swbreak+", b"qC", b"qfThreadInfo",
    b"qsThreadInfo", b"qXfer:features:read:target.xml:0,ffb", b"qXfer:memory-map:read::0,100",
    b"qXfer:threads:read::0,100", b"qXfer:features:read:target.xml:zz", b"qThreadExtraInfo,1",
    b"qAttached", b"qTStatus", b"qSymbol::", b"vCont?", b"vMustReplyEmpty", b"qRcmd,68656c70",
    b"qRcmd,7768656e", b"qRcmd,zz", b"Z0,1000,1", b"z0,1000,1", b"Z2,1000,8", b"z2,1000,8",
    b"Z1,1000,1;X3,220127", b"Z9,0,0", b"Z0,zz,1", b"Z0,1000,1;X5,22", b"qSearch:memory:0;100;\x01",
    b"Qqemu.PhyMemMode:1", b"Qqemu.PhyMemMode:0", b"qqemu.PhyMemMode", b"Qqemu.sstep=7",
    b"qqemu.sstepbits", b"vRun;", b"QPassSignals:", b"F0", b"R00", b"!", b"", b"b", b"bx",
]  # fmt: skip
"""Everything but what lets the guest run."""
RESUMING = (b"c", b"s", b"C", b"S", b"vCont;", b"bc", b"bs", b"D", b"k", b"vKill")


def dull(data: bytes, most: int) -> list[Packet | Signal]:
    """What the manual says of a whole stream, a byte at a time."""
    found: list[Packet | Signal] = []
    signs = {0x2B: Signal.ACK, 0x2D: Signal.NACK, 3: Signal.INTERRUPT}
    body: list[int] | None = None
    tail = ""
    inside = True
    for byte in data:
        if body is None:
            if byte == 0x24:
                body, tail, inside = [], "", True
            elif byte in signs:
                found.append(signs[byte])
        elif inside and byte == 0x24:
            body = []
        elif inside and byte == 0x23:
            inside = False
        elif inside:
            body.append(byte)
        else:
            tail += chr(byte)
            if len(tail) == 2:
                found.append(judged(body, tail, most))
                body = None
    return found


def judged(body: list[int], tail: str, most: int) -> Packet | Signal:
    digits = set("0123456789abcdefABCDEF")
    if not set(tail) <= digits or int(tail, 16) != sum(body) % 256 or len(body) > 2 * most:
        return Signal.GARBLED
    out: list[int] = []
    rest = list(body)
    while rest:
        byte = rest.pop(0)
        if byte == 0x7D or byte == 0x2A:
            if not rest or len(out) > most:
                return Signal.GARBLED
            extra = rest.pop(0)
            if byte == 0x7D:
                out.append(extra ^ 0x20)
            elif not out or extra < 32 or extra > 126:
                return Signal.GARBLED
            else:
                out += [out[-1]] * (extra - 29)
        else:
            out.append(byte)
    return Packet(bytes(out)) if len(out) <= most else Signal.GARBLED


def stream(chance: random.Random) -> bytes:
    """A stream as a broken or hostile client sends it."""
    out = bytearray()
    for _ in range(chance.randint(1, 4)):
        word = bytearray(chance.choice(WORDS))
        for _ in range(chance.choice((0, 0, 0, 1, 2))):
            if word:
                word[chance.randrange(len(word))] = chance.randrange(256)
        packet = bytearray(frame(bytes(word)))
        match chance.randrange(8):
            case 0:
                del packet[chance.randrange(len(packet)) :]
            case 1:
                packet[chance.randrange(len(packet))] = chance.choice(b"$#}*+-\x03\x000a")
            case 2:
                packet += chance.randbytes(chance.randint(1, 5))
            case 3:
                at = chance.randrange(len(packet))
                packet[at:at] = packet[at : at + 3] * chance.randint(1, 9)
            case _:
                pass  # as it should be
        out += packet
    return bytes(out)


def fuzz_decoder(count: int, seed: int) -> int:
    """Return how many packets there were in `count` streams."""
    chance, packets = random.Random(seed), 0
    for _ in range(count):
        data, most = stream(chance), chance.choice((16, 64, 1024))
        decoder, found, at = Decoder(most), list[Packet | Signal](), 0
        while at < len(data):
            size = chance.randint(1, 12)
            found += decoder.feed(data[at : at + size])
            at += size
        assert found == dull(data, most), (data, most)
        packets += sum(isinstance(item, Packet) for item in found)
    return packets


def payload(chance: random.Random) -> bytes:
    """A packet's inside: a known command, changed a little, or nothing that is one."""
    word = bytearray(chance.choice(WORDS))
    for _ in range(chance.choice((0, 1, 1, 2, 5))):
        match chance.randrange(3):
            case 0 if word:
                word[chance.randrange(len(word))] = chance.choice(b"0123456789abcdef,:;-=Zz\xff\0")
            case 1:
                word += chance.choice(WORDS)[:4]
            case _:
                del word[chance.randint(0, len(word)) :]
    return bytes(word)


if __name__ == "__main__":
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    start = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    sys.stdout.write(
        f"{total:,} streams: {fuzz_decoder(total, start):,} packets, both decoders agree\n"
    )
    from tests.vmm.gdb.test_stub import fuzz_stub

    sys.stdout.write(f"{total:,} packets to the commands: {fuzz_stub(total, start):,} understood\n")
