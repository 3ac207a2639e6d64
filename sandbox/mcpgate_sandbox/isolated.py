"""Engine 1 with a second wall: each Wasm guest in a locked-down child process of its own, so that a fault of the Wasm
runtime costs one child and meets the kernel's filter. For gateways that serve strangers."""

from mcpgate_sandbox import component
from mcpgate_sandbox.children import ChildEngine, Nursery
from mcpgate_sandbox.pool import Progress


class IsolatedWasmEngine(ChildEngine):
    """CPython in Wasm, in child processes."""

    name = "wasm"

    def load(self, progress: Progress | None) -> Nursery:
        # Compiled here, where somebody can be told; the children's process finds it in the cache.
        environment = {"MCPGATE_CACHE_DIR": str(component.prepare(progress))}
        return _WasmNursery("wasm", environment, self.allow_unlocked)


class _WasmNursery(Nursery):
    def locks(self) -> list[str]:
        return [component.LOCK, *super().locks()]
