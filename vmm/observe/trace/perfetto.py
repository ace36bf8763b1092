"""A timeline as a Perfetto trace: TrackEvent packets, by the `perfetto` package's own messages.

A virtual machine is a process, a vCPU one of its threads; the physical CPU, devices and counters
are in the group "Hypervisor". Times are modelled nanoseconds, on a clock of their own that begins
at power-on; the cycle stands beside them. Names are interned: a trace is mostly names.
"""

from typing import Any, BinaryIO, Final

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (
    DebugAnnotation,
    Trace,
    TracePacket,
    TrackDescriptor,
    TrackEvent,
)
from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder

from vmm.observe.trace.records import Trace as Records
from vmm.observe.trace.timeline import (
    COUNTERS,
    Begin,
    Count,
    End,
    Instant,
    Item,
    Timeline,
    Track,
)

PROCESS_UUID: Final = 1
GROUP_UUID: Final = 2
_KINDS: Final = {"vcpu": 0x1000, "pcpu": 0x2000, "device": 0x3000, "counter": 0x4000}
_SEQUENCE: Final = 1
_MODEL_CLOCK: Final = 64  # the first of those that a sequence may define
_BOOT_CLOCK: Final = 6  # BUILTIN_CLOCK_BOOTTIME: what the model's clock is drawn on
_PID: Final = 1000
_NS: Final = 1_000_000_000
_MASK64: Final = (1 << 64) - 1
_ADDRESSES: Final = frozenset({"rip", "gpa", "qualification", "address", "value"})


def uuid_of(track: Track) -> int:
    """Return the number of a track in the file."""
    return _KINDS[track.kind] + track.number


def write_perfetto(trace: Records, file: BinaryIO) -> None:
    """Write the whole trace."""
    writer = _Writer(trace, file)
    timeline = Timeline(trace)
    writer.describe(timeline.tracks)
    for item in timeline:
        writer.write(item)


class _Writer:
    def __init__(self, trace: Records, file: BinaryIO) -> None:
        self._builder: Final = StreamingTraceProtoBuilder(file)
        self._file: Final = file
        self._common: Final[dict[tuple[type[Item], Track, str], bytes]] = {}
        self._frequency: Final = trace.header.frequency
        self._image: Final = trace.header.image or "guest"
        self._names: Final[dict[str, int]] = {}
        self._keys: Final[dict[str, int]] = {}

    def _packet(self) -> Any:
        packet = self._builder.create_packet()
        packet.trusted_packet_sequence_id = _SEQUENCE
        return packet

    # ---- what is there ----

    def describe(self, tracks: list[Track]) -> None:
        """Write the clock and every track."""
        packet = self._packet()
        packet.sequence_flags = TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        packet.trace_packet_defaults.timestamp_clock_id = _MODEL_CLOCK
        self._builder.write_packet(packet)
        packet = self._packet()
        for number in (_BOOT_CLOCK, _MODEL_CLOCK):
            clock = packet.clock_snapshot.clocks.add()
            clock.clock_id, clock.timestamp = number, 0
        self._builder.write_packet(packet)
        packet = self._packet()
        packet.track_descriptor.uuid = PROCESS_UUID
        packet.track_descriptor.process.pid = _PID
        packet.track_descriptor.process.process_name = f"VM {self._image}"
        self._builder.write_packet(packet)
        packet = self._packet()
        packet.track_descriptor.uuid, packet.track_descriptor.name = GROUP_UUID, "Hypervisor"
        self._builder.write_packet(packet)
        for track in (*tracks, *COUNTERS):
            self._describe(track)

    def _describe(self, track: Track) -> None:
        packet = self._packet()
        descriptor: TrackDescriptor = packet.track_descriptor
        descriptor.uuid = uuid_of(track)
        if track.kind == "vcpu":
            descriptor.parent_uuid = PROCESS_UUID
            descriptor.thread.pid, descriptor.thread.tid = _PID, _PID + 1 + track.number
            descriptor.thread.thread_name = track.name
        else:
            descriptor.parent_uuid, descriptor.name = GROUP_UUID, track.name
        if track.kind == "counter":
            descriptor.counter.SetInParent()
        self._builder.write_packet(packet)

    # ---- what happens ----

    def write(self, item: Item) -> None:
        """Write one item: what it shares with others of its kind, its time, its own values.

        Parts of a message that are written one after the other are merged by who reads them, so
        that the common part is made once by the package's messages, and copied.
        """
        kind, track = type(item), item.track
        name = "" if kind is End or kind is Count else item.name  # type: ignore[union-attr]
        common = self._common.get((kind, track, name))
        if common is None:
            common = self._common[kind, track, name] = self._make(item, name)
        packet = common + _TIMESTAMP + _varint(item.cycle * _NS // self._frequency)
        if kind is Count:
            own = _COUNTER + _varint(item.value)  # type: ignore[union-attr]
            packet += _EVENT + _varint(len(own)) + own
        elif kind is not End:
            packet += self._own(item)  # type: ignore[arg-type]
        self._file.write(_PACKET + _varint(len(packet)) + packet)

    def _make(self, item: Item, name: str) -> bytes:
        packet = self._packet()
        packet.sequence_flags = TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        packet.track_event.type = _TYPES[type(item)]
        packet.track_event.track_uuid = uuid_of(item.track)
        if name:
            packet.track_event.name_iid = self._intern("event_names", self._names, name)
        return bytes(packet.SerializeToString(deterministic=True))

    def _own(self, item: Begin | Instant) -> bytes:
        event = b"".join(self._argument(key, value) for key, value in item.args.items())
        for flow in item.starts:
            event += _FLOW + flow.to_bytes(8, "little")
        for flow in item.ends:
            event += _FLOW_END + flow.to_bytes(8, "little")
        return _EVENT + _varint(len(event)) + event if event else b""

    def _argument(self, key: str, value: int | str) -> bytes:
        number = self._keys.get(key) or self._intern("debug_annotation_names", self._keys, key)
        if isinstance(value, str):
            text = value.encode()
            own = _STRING + _varint(len(text)) + text
        else:
            own = (_POINTER if key in _ADDRESSES else _NUMBER) + _varint(value & _MASK64)
        own = _NAME_IID + _varint(number) + own
        return _ANNOTATION + _varint(len(own)) + own

    def _intern(self, field: str, known: dict[str, int], name: str) -> int:
        """Give a name a number, in a packet of its own before the first use."""
        number = known.get(name)
        if number is None:
            number = known[name] = len(known) + 1
            packet = self._packet()
            packet.sequence_flags = TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
            entry = getattr(packet.interned_data, field).add()
            entry.iid, entry.name = number, name
            self._builder.write_packet(packet)
        return number


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first (Protocol Buffers, "Base 128 Varints")."""
    if value < 0x80:
        return _BYTES[value]
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _tag(message: Any, name: str) -> bytes:
    """The tag of a field: its number as the package has it, and the wire type of its kind."""
    field = message.DESCRIPTOR.fields_by_name[name]
    wire = 1 if field.type == field.TYPE_FIXED64 else 0
    wire = 2 if field.type in (field.TYPE_MESSAGE, field.TYPE_STRING) else wire
    return _varint(field.number << 3 | wire)


_BYTES: Final = [bytes([n]) for n in range(0x80)]
_TYPES: Final = {
    Begin: TrackEvent.TYPE_SLICE_BEGIN,
    End: TrackEvent.TYPE_SLICE_END,
    Instant: TrackEvent.TYPE_INSTANT,
    Count: TrackEvent.TYPE_COUNTER,
}
_PACKET: Final = _tag(Trace, "packet")
_TIMESTAMP: Final = _tag(TracePacket, "timestamp")
_EVENT: Final = _tag(TracePacket, "track_event")
_COUNTER: Final = _tag(TrackEvent, "counter_value")
_FLOW: Final = _tag(TrackEvent, "flow_ids")
_FLOW_END: Final = _tag(TrackEvent, "terminating_flow_ids")
_ANNOTATION: Final = _tag(TrackEvent, "debug_annotations")
_NAME_IID: Final = _tag(DebugAnnotation, "name_iid")
_POINTER: Final = _tag(DebugAnnotation, "pointer_value")
_NUMBER: Final = _tag(DebugAnnotation, "uint_value")
_STRING: Final = _tag(DebugAnnotation, "string_value")
