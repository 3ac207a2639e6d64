"""Engine 2: RestrictedPython in a locked-down child process, for machines without wasmtime. The policy (restriction/)
says what code may name and reach; it is not what holds it. That is the kernel: see locks.py."""

from mcpgate_sandbox.children import ChildEngine, Nursery
from mcpgate_sandbox.pool import Progress


class RestrictedEngine(ChildEngine):
    """RestrictedPython on the host's own CPython, in child processes."""

    name = "restricted"

    def load(self, progress: Progress | None) -> Nursery:
        return Nursery("restricted", {}, self.allow_unlocked)
