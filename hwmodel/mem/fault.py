"""Why software cannot make an access for a guest."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a guest access is not possible.

    `vector` is the exception (None: no memory there, an EPT violation at `gpa`).
    """

    vector: int | None
    error_code: int = 0
    address: int = 0
    gpa: int = 0
