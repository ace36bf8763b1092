"""A device's attributes written down and read back, by name and by type.

The names are listed once per class, so that save() and restore() cannot drift apart. On restoring,
each value takes the type the attribute has (a bool is saved as an int, a bytearray as bytes).
"""

from collections.abc import Iterable

from vmm.devices.device import State
from vmm.errors import UsageError


def save_fields(owner: object, names: Iterable[str], version: int = 1) -> State:
    """Return {"version": version, name: value, ...} with plain copies of the named attributes."""
    state: State = {"version": version}
    for name in names:
        state[name.lstrip("_")] = _plain(getattr(owner, name))
    return state


def restore_fields(owner: object, names: Iterable[str], state: State, version: int = 1) -> None:
    """Set the named attributes of `owner` from what save_fields() returned.

    Raises UsageError when the state was written by another version of the device.
    """
    if state.get("version") != version:
        device = getattr(owner, "name", type(owner).__name__)
        raise UsageError(
            f"saved state of device {device!r} has version {state.get('version')!r}, this "
            f"program reads version {version}: use the program that saved it"
        )
    for name in names:
        setattr(owner, name, _typed(getattr(owner, name), state[name.lstrip("_")]))


def pack_items(items: Iterable[bytes]) -> bytes:
    """Return a list of byte strings as one: each behind its length, 32 bits, little-endian."""
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


def unpack_items(packed: object) -> list[bytes]:
    """Return the list that pack_items() packed."""
    assert isinstance(packed, bytes)
    items, at = [], 0
    while at < len(packed):
        end = at + 4 + int.from_bytes(packed[at : at + 4], "little")
        items.append(packed[at + 4 : end])
        at = end
    return items


def _plain(value: object) -> object:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, bytearray):
        return bytes(value)
    assert isinstance(value, bytes | list), value
    return value[:]


def _typed(current: object, value: object) -> object:
    assert isinstance(value, int | bytes | list), value
    if isinstance(current, bool):
        return bool(value)
    if isinstance(current, bytearray):
        assert isinstance(value, bytes)
        return bytearray(value)
    return value[:] if isinstance(value, list) else value
