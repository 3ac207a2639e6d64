"""The part of the admin API that shows alerts and their states."""

from typing import Any

from mcpgate.activity.alerts import State
from mcpgate.api.http.routing import Call, Reply, Route, json_reply
from mcpgate.gateway import Gateway
from mcpgate.governance.records import shown_moment


class AlertRoutes:
    """Answers /api/alerts."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/api/alerts", "List alerts and what was told about them", self._list),
            Route("POST", "/api/alerts/test", "Send a test to every channel", self._test),
        ]

    async def _list(self, call: Call) -> Reply:
        watch, channels = self._gateway.activity.alerts, self._gateway.config.telemetry.channels
        states: dict[str, list[dict[str, Any]]] = {}
        for state in await watch.store.states():
            states.setdefault(state.alert, []).append(_shown(state))
        alerts = [
            {
                "id": id,
                "when": alert.when.model_dump(mode="json", include=set(alert.when.names())),
                "only": alert.only,
                "names": alert.names,
                "channels": alert.channels,
                "firing": any(one["firing"] for one in states.get(id, ())),
                "states": states.get(id, []),
            }
            for id, alert in watch.alerts.items()
        ]
        shown_channels = [{"name": name, "type": one.type, "format": one.format} for name, one in channels.items()]
        return json_reply({"alerts": alerts, "channels": shown_channels})

    async def _test(self, call: Call) -> Reply:
        found = await self._gateway.activity.alerts.test()
        return json_reply({"channels": [{"name": name, "error": error or None} for name, error in found.items()]})


def _shown(state: State) -> dict[str, Any]:
    return {
        "subject": state.subject or None,
        "firing": state.level > 0,
        "since": shown_moment(state.since),
        "level": state.level,
        "text": state.text,
        "told": state.is_told,
    }
