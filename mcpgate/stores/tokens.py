"""Tokens of sign-ins in the memory of one process: for tests, and where no store can be used."""

import time


class MemoryTokens:
    """Implements upstream.tokens.Tokens. For one event loop."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[bytes, float | None]] = {}
        self._locks: dict[str, tuple[str, float]] = {}

    async def get(self, key: str) -> bytes | None:
        value, until = self._values.get(key, (None, None))
        return None if until is not None and until <= time.time() else value

    async def put(self, key: str, value: bytes, for_s: float | None = None) -> None:
        self._values[key] = value, None if for_s is None else time.time() + for_s

    async def take(self, key: str) -> bytes | None:
        value = await self.get(key)
        self._values.pop(key, None)
        return value

    async def keys(self, prefix: str) -> list[str]:
        return sorted([key for key in self._values if key.startswith(prefix) and await self.get(key) is not None])

    async def acquire(self, key: str, owner: str, for_s: float) -> bool:
        holder, until = self._locks.get(key, ("", 0.0))
        if until > time.time() and holder != owner:
            return False
        self._locks[key] = owner, time.time() + for_s
        return True

    async def release(self, key: str, owner: str) -> None:
        if self._locks.get(key, ("", 0.0))[0] == owner:
            del self._locks[key]

    async def close(self) -> None:
        pass
