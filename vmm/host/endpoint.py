"""Where a stream socket is: `unix:PATH` or `[HOST]:PORT`."""

from dataclasses import dataclass

from vmm.errors import UsageError


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address. `path` is empty for TCP."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"


def parse_endpoint(option: str, value: str) -> Endpoint:
    """Read an address; UsageError says what is wrong with `value` in `option`, as it is written."""
    if value.startswith("unix:") and len(value) > len("unix:"):
        return Endpoint(path=value.removeprefix("unix:"))
    host, colon, port = value.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and 0 < int(port[:9]) < 65536):
        raise UsageError(
            f"{option}: {value!r} is no address; write 127.0.0.1:5555 or unix:PATH, "
            "with a port from 1 to 65535"
        )
    return Endpoint(host or "127.0.0.1", int(port))
