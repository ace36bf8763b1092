"""A US keyboard's keys: scan codes, and which of them a terminal's bytes stand for.

Codes are from "Keyboard Scan Code Specification" (Microsoft): set 2 as the keyboard sends them, and
set 1 into which the 8042 translates. Codes of 0x100 and more have the prefix 0xe0.
"""

from typing import Final

EXTENDED: Final = 0x100
_CHARACTERS: Final = {
    # set 2: (set 1, plain and shifted character)
    0x1C: (0x1E, "aA"), 0x32: (0x30, "bB"), 0x21: (0x2E, "cC"), 0x23: (0x20, "dD"),
    0x24: (0x12, "eE"), 0x2B: (0x21, "fF"), 0x34: (0x22, "gG"), 0x33: (0x23, "hH"),
    0x43: (0x17, "iI"), 0x3B: (0x24, "jJ"), 0x42: (0x25, "kK"), 0x4B: (0x26, "lL"),
    0x3A: (0x32, "mM"), 0x31: (0x31, "nN"), 0x44: (0x18, "oO"), 0x4D: (0x19, "pP"),
    0x15: (0x10, "qQ"), 0x2D: (0x13, "rR"), 0x1B: (0x1F, "sS"), 0x2C: (0x14, "tT"),
    0x3C: (0x16, "uU"), 0x2A: (0x2F, "vV"), 0x1D: (0x11, "wW"), 0x22: (0x2D, "xX"),
    0x35: (0x15, "yY"), 0x1A: (0x2C, "zZ"),
    0x16: (0x02, "1!"), 0x1E: (0x03, "2@"), 0x26: (0x04, "3#"), 0x25: (0x05, "4$"),
    0x2E: (0x06, "5%"), 0x36: (0x07, "6^"), 0x3D: (0x08, "7&"), 0x3E: (0x09, "8*"),
    0x46: (0x0A, "9("), 0x45: (0x0B, "0)"), 0x4E: (0x0C, "-_"), 0x55: (0x0D, "=+"),
    0x54: (0x1A, "[{"), 0x5B: (0x1B, "]}"), 0x4C: (0x27, ";:"), 0x52: (0x28, "'\""),
    0x0E: (0x29, "`~"), 0x5D: (0x2B, "\\|"), 0x41: (0x33, ",<"), 0x49: (0x34, ".>"),
    0x4A: (0x35, "/?"), 0x29: (0x39, " "),
}  # fmt: skip
_NAMED: Final = {
    "esc": (0x76, 0x01), "backspace": (0x66, 0x0E), "tab": (0x0D, 0x0F), "enter": (0x5A, 0x1C),
    "ctrl": (0x14, 0x1D), "shift": (0x12, 0x2A), "alt": (0x11, 0x38),
    "f1": (0x05, 0x3B), "f2": (0x06, 0x3C), "f3": (0x04, 0x3D), "f4": (0x0C, 0x3E),
    "f5": (0x03, 0x3F), "f6": (0x0B, 0x40), "f7": (0x83, 0x41), "f8": (0x0A, 0x42),
    "f9": (0x01, 0x43), "f10": (0x09, 0x44), "f11": (0x78, 0x57), "f12": (0x07, 0x58),
    "home": (0x16C, 0x47), "up": (0x175, 0x48), "pgup": (0x17D, 0x49), "left": (0x16B, 0x4B),
    "right": (0x174, 0x4D), "end": (0x169, 0x4F), "down": (0x172, 0x50), "pgdn": (0x17A, 0x51),
    "ins": (0x170, 0x52), "del": (0x171, 0x53),
}  # fmt: skip
"""Name -> (set 2, set 1 without its prefix)."""

SET_1: Final = {code: one for code, (one, _) in _CHARACTERS.items()} | {
    code & 0xFF: one for code, one in _NAMED.values()
}
"""Set 2 to set 1, byte by byte, as the 8042's table has it for these keys."""

_SEQUENCES: Final = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left",
    b"\x1bOA": "up", b"\x1bOB": "down", b"\x1bOC": "right", b"\x1bOD": "left",
    b"\x1b[H": "home", b"\x1b[F": "end", b"\x1b[1~": "home", b"\x1b[4~": "end",
    b"\x1b[2~": "ins", b"\x1b[3~": "del", b"\x1b[5~": "pgup", b"\x1b[6~": "pgdn",
    b"\x1bOP": "f1", b"\x1bOQ": "f2", b"\x1bOR": "f3", b"\x1bOS": "f4", b"\x1b[15~": "f5",
    b"\x1b[17~": "f6", b"\x1b[18~": "f7", b"\x1b[19~": "f8", b"\x1b[20~": "f9",
    b"\x1b[21~": "f10", b"\x1b[23~": "f11", b"\x1b[24~": "f12",
    b"\x1b": "esc", b"\t": "tab", b"\r": "enter", b"\n": "enter", b"\x7f": "backspace",
    b"\b": "backspace",
}  # fmt: skip
"""What an xterm sends ("PC-Style Function Keys")."""
LONGEST_SEQUENCE: Final = max(map(len, _SEQUENCES))

Chord = tuple[int, ...]
"""Set 2 codes of keys held together, in the order in which they go down."""


def _chords() -> dict[bytes, Chord]:
    shift, ctrl = _NAMED["shift"][0], _NAMED["ctrl"][0]
    made: dict[bytes, Chord] = {}
    for code, (_, characters) in _CHARACTERS.items():
        made[characters[0].encode()] = (code,)
        if len(characters) > 1:
            made[characters[1].encode()] = (shift, code)
        if characters[0].isalpha():
            made[bytes([ord(characters[0]) & 0x1F])] = (ctrl, code)
    return made | {data: (_NAMED[name][0],) for data, name in _SEQUENCES.items()}


CHORDS: Final = _chords()


def chords(data: bytes) -> list[Chord]:
    """Return the keys that stand for what a terminal sent; bytes that no key has are left out."""
    found, at = [], 0
    while at < len(data):
        for size in range(min(LONGEST_SEQUENCE, len(data) - at), 0, -1):
            if chord := CHORDS.get(data[at : at + size]):
                found.append(chord)
                break
        else:
            size = 1
        at += size
    return found
