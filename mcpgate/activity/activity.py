"""What a gateway knows of what was asked and done: its request log, the contents that are kept, its alerts."""

from dataclasses import dataclass

from mcpgate.activity.contents import ContentLog
from mcpgate.activity.log import RequestLog
from mcpgate.activity.requests import Requests
from mcpgate.activity.watch import AlertWatch


@dataclass(frozen=True, slots=True)
class Activity:
    requests: Requests
    """The ledger as a log."""
    log: RequestLog
    contents: ContentLog
    alerts: AlertWatch

    async def aclose(self) -> None:
        """When everything has been settled, and before the stores are closed."""
        await self.alerts.aclose()
        await self.contents.aclose()
        await self.requests.close()
