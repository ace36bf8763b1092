"""Numbers of operations: the C engine's, and above every exit reason."""

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.operations import Operation
from hwmodel.cpu.unicorn import lib


def test_the_engine_has_the_same_numbers() -> None:
    engine = {name: getattr(lib, name) for name in dir(lib) if name.startswith("OPERATION_")}
    assert engine == {f"OPERATION_{operation.name}": operation for operation in Operation}
    assert max(Operation) < lib.REASONS
    assert min(Operation) > max(ExitReason)
    assert not Operation.__members__.keys() & ExitReason.__members__.keys()
