"""The ``--balloon`` option: its size at the start, and what is offered to the guest."""

from dataclasses import dataclass

from vmm.config import parse_size
from vmm.errors import UsageError


@dataclass(frozen=True, slots=True)
class BalloonOptions:
    """`target` in bytes; `poll_ns` between requests for statistics in virtual time, 0 for none."""

    target: int = 0
    poll_ns: int = 0
    reporting: bool = True
    deflate_on_oom: bool = True

    @classmethod
    def parse(cls, text: str) -> "BalloonOptions":
        """Read "on|SIZE[,stats=SECONDS][,reporting=off][,deflate-on-oom=off]"."""
        size, *items = text.split(",")
        target, poll_ns, flags = _target(text, size), 0, {"reporting": True, "deflate-on-oom": True}
        for item in items:
            key, _, value = item.partition("=")
            if key in flags and value in ("on", "off"):
                flags[key] = value == "on"
            elif key == "stats":
                poll_ns = _nanoseconds(text, value)
            else:
                raise UsageError(
                    f"--balloon {text!r}: {item!r} is not known; it takes stats=SECONDS, "
                    "reporting=on|off, deflate-on-oom=on|off"
                )
        return cls(target, poll_ns, flags["reporting"], flags["deflate-on-oom"])


def _target(text: str, size: str) -> int:
    try:
        return 0 if size == "on" else parse_size(size)
    except UsageError:
        raise UsageError(
            f"--balloon {text!r}: {size!r} is no size; write on, or 64M to take so much"
        ) from None


def _nanoseconds(text: str, value: str) -> int:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0
    if not 0.001 <= seconds <= 86400:
        raise UsageError(f"--balloon {text!r}: stats={value} is no time; give seconds, as in 1")
    return int(seconds * 1_000_000_000)
