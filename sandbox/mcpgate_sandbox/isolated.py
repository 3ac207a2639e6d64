"""Engine 1 with a second wall: each Wasm guest in a locked-down child process of its own, so that a fault of the Wasm
runtime costs one child and meets the kernel's filter. For gateways that serve strangers."""

from mcpgate_sandbox import component
from mcpgate_sandbox.children import Nursery
from mcpgate_sandbox.pool import PooledEngine, Progress
from mcpgate_sandbox.sessions import SessionLimits


class IsolatedWasmEngine(PooledEngine):
    """CPython in Wasm, in child processes."""

    name = "wasm"

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

    def load(self, progress: Progress | None) -> "_Source":
        # Compiled here, where somebody can be told; the children's process finds it in the cache.
        environment = {"MCPGATE_CACHE_DIR": str(component.prepare(progress))}
        return _Source("wasm", environment, self._allow_unlocked)


class _Source(Nursery):
    def locks(self) -> list[str]:
        wasm = "WebAssembly: only the functions of guest/world.wit, two clocks and random bytes are linked"
        return [wasm, *super().locks()]
