"""Engine 2: RestrictedPython in a locked-down child process, for machines without wasmtime. The policy (policy.py)
says what code may name and reach; it is not what holds it. That is the kernel: see locks.py."""

from mcpgate_sandbox.children import Nursery
from mcpgate_sandbox.pool import PooledEngine, Progress
from mcpgate_sandbox.sessions import SessionLimits


class RestrictedEngine(PooledEngine):
    """RestrictedPython on the host's own CPython, in child processes."""

    name = "restricted"

    def __init__(
        self,
        *,
        warm: int | None = None,
        max_executions: int = 32,
        sessions: SessionLimits = SessionLimits(),  # noqa: B008  it is frozen
        allow_unlocked: bool = False,
    ) -> None:
        """As PooledEngine. `allow_unlocked`: run even where the kernel cannot filter system calls."""
        super().__init__(warm=warm, max_executions=max_executions, sessions=sessions)
        self._allow_unlocked = allow_unlocked

    def load(self, progress: Progress | None) -> Nursery:
        return Nursery("restricted", {}, self._allow_unlocked)
