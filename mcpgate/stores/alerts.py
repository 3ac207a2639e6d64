"""What was told about alerts, in the memory of one process: for tests, and where no store can be used."""

from mcpgate.activity.alerts import State


class MemoryAlerts:
    """Implements activity.alerts.AlertStore. For one event loop."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], State] = {}
        self._leader = ("", 0.0)

    async def lead(self, owner: str, now: float, until: float) -> bool:
        if self._leader[0] not in ("", owner) and self._leader[1] > now:
            return False
        self._leader = owner, until
        return True

    async def states(self) -> list[State]:
        return [self._states[key] for key in sorted(self._states)]

    async def save(self, state: State) -> None:
        self._states[state.key] = state

    async def remove(self, alert: str, subject: str) -> None:
        self._states.pop((alert, subject), None)

    async def close(self) -> None:
        pass
