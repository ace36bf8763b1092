"""Work over a dask cluster: tasks in, results out, a worker that dies loses nothing.

`distributed` is an optional dependency: pip install ring1[cluster].
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Final

from vmm.errors import UsageError

LOCAL: Final = "local"
RETRIES: Final = 3
"""How often a task is tried again whose worker died."""


def spread(
    address: str, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], workers: int = 2
) -> Iterator[Any]:
    """Yield `function(*task)` of every task, in order, from the cluster at `address`.

    "local" starts one of `workers` processes here. Raises UsageError when there is none.
    """
    library: Any = _library()
    with ExitStack() as stack:
        target: Any = address
        if address == LOCAL:
            cluster = library.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=None
            )
            target = stack.enter_context(cluster)
        try:
            client = stack.enter_context(library.Client(target, timeout="10s"))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--scheduler {address!r} does not answer ({error}); start one by dask scheduler, "
                "or say local"
            ) from None
        submit = client.submit
        futures = [submit(function, *task, retries=RETRIES, pure=False) for task in tasks]
        yield from (future.result() for future in futures)


def _library() -> Any:
    try:
        import distributed
    except ImportError:
        raise UsageError(
            "--scheduler needs the package distributed; pip install distributed"
        ) from None
    return distributed
