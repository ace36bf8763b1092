"""The header of a qcow2 image, checked: what this program cannot honour is refused by name."""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from vmm.errors import UsageError
from vmm.storage.hostfile import HostFile

MAGIC: Final = b"QFI\xfb"
_V2 = Struct(">4sIQIIQIIQQIIQ")
_V3 = Struct(">QQQII")
V2_LENGTH: Final = _V2.size  # 72
V3_LENGTH: Final = _V2.size + _V3.size  # 104
REFCOUNT_TABLE_AT: Final = 48  # offset (8 bytes) and clusters (4) of the refcount table
AUTOCLEAR_AT: Final = 88

DIRTY, CORRUPT, EXTERNAL_DATA, COMPRESSION, EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN: Final = DIRTY | CORRUPT | COMPRESSION
_NAMES: Final = {EXTERNAL_DATA: "an external data file", EXTENDED_L2: "extended L2 entries"}
_BACKING_FORMAT: Final = 0xE279_2ACA
_ENCRYPTION: Final = 0x0537_BE77
_MIN_BITS, _MAX_BITS = 9, 21
_MAX_L1: Final = 32 << 20  # bytes; QEMU's bound: QCOW_MAX_L1_SIZE
_MAX_REFCOUNT_TABLE: Final = 8 << 20  # bytes; QCOW_MAX_REFTABLE_SIZE
_MAX_BACKING_NAME: Final = 1023


@dataclass(frozen=True, slots=True)
class Header:
    """The fields that matter, in bytes, clusters and bits as the specification has them."""

    version: int
    cluster_bits: int
    size: int
    l1_size: int
    l1_offset: int
    refcount_table_offset: int
    refcount_table_clusters: int
    snapshots: int
    incompatible: int
    autoclear: int
    refcount_order: int
    zstd: bool
    backing: str
    backing_format: str

    @property
    def cluster_size(self) -> int:
        """Return bytes in a cluster."""
        return 1 << self.cluster_bits

    @classmethod
    def read(cls, file: HostFile, *, writable: bool) -> "Header":
        """Read and check. Raises UsageError, one line, for what cannot be used as asked."""
        complaint = _Complaint(file)
        head = file.read(0, min(file.size, 4096))
        if len(head) < V2_LENGTH:
            complaint.refuse(f"has {len(head)} bytes, too few for a header: truncated")
        fields = _V2.unpack_from(head)
        version = fields[1]
        if version not in (2, 3):
            complaint.refuse(f"is of version {version}; versions 2 and 3 can be read")
        if version == 3 and len(head) < V3_LENGTH:
            complaint.refuse(f"has {len(head)} bytes, too few for a header: truncated")
        v3 = _V3.unpack_from(head, V2_LENGTH) if version == 3 else (0, 0, 0, 4, V2_LENGTH)
        _check_features(complaint, fields[6], v3[0], writable=writable)
        _check_geometry(complaint, fields[4], v3[3], v3[4])
        header = cls(
            version=version,
            cluster_bits=fields[4],
            size=fields[5],
            l1_size=fields[7],
            l1_offset=fields[8],
            refcount_table_offset=fields[9],
            refcount_table_clusters=fields[10],
            snapshots=fields[11],
            incompatible=v3[0],
            autoclear=v3[2],
            refcount_order=v3[3],
            zstd=_is_zstd(complaint, head, v3[0], v3[4]),
            backing=_backing_name(complaint, file, fields[2], fields[3]),
            backing_format=_extensions(complaint, file, v3[4], fields[4]),
        )
        _check_tables(complaint, header, file.size)
        return header


class _Complaint:
    """Words around what is wrong with a file."""

    def __init__(self, file: HostFile) -> None:
        self._path = file.path

    def refuse(self, what: str) -> None:
        raise UsageError(f"--disk {self._path} {what}; repair it (qemu-img check) or convert it")


def _check_features(
    complaint: _Complaint, encryption: int, incompatible: int, *, writable: bool
) -> None:
    if encryption:
        complaint.refuse("is encrypted, which is not supported")
    for bit, name in _NAMES.items():
        if incompatible & bit:
            complaint.refuse(f"has {name}, which is not supported")
    if unknown := incompatible & ~(_KNOWN | EXTERNAL_DATA | EXTENDED_L2):
        complaint.refuse(f"has unknown incompatible features {unknown:#x}")
    if writable and incompatible & CORRUPT:
        complaint.refuse("is marked corrupt and can only be read (,readonly)")
    if writable and incompatible & DIRTY:
        complaint.refuse("was not closed in order and can only be read (,readonly)")


def _check_geometry(complaint: _Complaint, cluster_bits: int, order: int, length: int) -> None:
    if not _MIN_BITS <= cluster_bits <= _MAX_BITS:
        complaint.refuse(f"has clusters of 2^{cluster_bits} bytes, which no image has")
    if order > 6:
        complaint.refuse(f"has refcounts of 2^{order} bits, which no image has")
    if not V2_LENGTH <= length <= 1 << cluster_bits or length % 8:
        complaint.refuse(f"has a header of {length} bytes, which no image has")


def _is_zstd(complaint: _Complaint, head: bytes, incompatible: int, length: int) -> bool:
    """Whether clusters are compressed with zstd; zlib otherwise."""
    if not incompatible & COMPRESSION:
        return False
    kind = head[V3_LENGTH] if length > V3_LENGTH and len(head) > V3_LENGTH else 0
    if kind > 1:
        complaint.refuse(f"is compressed in an unknown way ({kind})")
    return kind == 1


def _backing_name(complaint: _Complaint, file: HostFile, offset: int, size: int) -> str:
    if not offset:
        return ""
    if size > _MAX_BACKING_NAME or offset + size > file.size:
        complaint.refuse(f"names its backing file in {size} bytes at {offset:#x}, which is corrupt")
    return file.read(offset, size).decode("utf-8", "surrogateescape")


def _extensions(complaint: _Complaint, file: HostFile, length: int, cluster_bits: int) -> str:
    """Walk the header extensions; return the backing file's format, "" if none is given."""
    at, end, found = length, min(1 << cluster_bits, file.size), ""
    while at + 8 <= end:
        kind, size = Struct(">II").unpack(file.read(at, 8))
        if kind == 0:
            break
        if at + 8 + size > end:
            complaint.refuse(f"has a header extension {kind:#x} of {size} bytes, which is corrupt")
        if kind == _ENCRYPTION:
            complaint.refuse("is encrypted, which is not supported")
        if kind == _BACKING_FORMAT:
            found = file.read(at + 8, size).decode("ascii", "replace")
        at += 8 + size + -size % 8
    return found


def _check_tables(complaint: _Complaint, header: Header, file_size: int) -> None:
    """The L1 and the refcount table lie in the file, aligned and large enough."""
    cluster = header.cluster_size
    reach = cluster * (cluster // 8)  # bytes of the disk behind one L1 entry
    tables = (
        ("L1 table", header.l1_offset, header.l1_size * 8, _MAX_L1),
        (
            "refcount table",
            header.refcount_table_offset,
            header.refcount_table_clusters * cluster,
            _MAX_REFCOUNT_TABLE,
        ),
    )
    if header.size % 512 or header.size == 0:
        complaint.refuse(f"is a disk of {header.size} bytes, no multiple of 512")
    if header.l1_size * reach < header.size:
        complaint.refuse(f"has an L1 table of {header.l1_size} entries, too few for its size")
    for name, offset, size, most in tables:
        if size > most or offset % cluster or (size and not offset):
            complaint.refuse(f"has its {name} at {offset:#x}, {size} bytes: it is corrupt")
        if offset + size > file_size:
            complaint.refuse(f"ends before its {name} does: it is truncated")
    if not header.refcount_table_clusters:
        complaint.refuse("has no refcount table: it is corrupt")
