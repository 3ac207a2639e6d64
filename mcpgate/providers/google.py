"""Access tokens of Google, for Gemini on Vertex AI."""

from collections.abc import Mapping
from typing import Any

import google.auth
import google.auth.exceptions
import google.auth.transport.requests
from google.auth.credentials import TokenState
from google.oauth2 import service_account

from mcpgate.config.llm import VertexConfig
from mcpgate.errors import UpstreamTimeout
from mcpgate.providers.renewal import Renewal, no_credentials

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_FETCH_S = 30.0


class VertexTokens:
    """One token at a time, fetched when it is needed and again before it expires."""

    def __init__(self, name: str, config: VertexConfig) -> None:
        self._name, self._config = name, config
        self._credentials: Any = None
        self._headers: Mapping[str, str] = {}
        self._renewal = Renewal(self._fetch, _FETCH_S)

    async def headers(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        # Google's own class calls a token invalid some minutes before it expires.
        if self._credentials is None or not self._headers or not self._credentials.valid:
            try:
                self._headers = await self._renewal.get()
            except (TimeoutError, google.auth.exceptions.GoogleAuthError, OSError, ValueError) as error:
                if self._headers and self._credentials.token_state is not TokenState.INVALID:
                    return self._headers  # it has some minutes left
                if isinstance(error, TimeoutError):
                    raise UpstreamTimeout(f"Google sent no access token for {self._name} in {_FETCH_S:g} s") from None
                raise no_credentials(f"there is no access token of Google for {self._name}", error) from error
        return self._headers

    async def aclose(self) -> None:
        await self._renewal.aclose()

    def _fetch(self) -> Mapping[str, str]:
        if self._credentials is None:
            self._credentials = self._found()
        self._credentials.refresh(google.auth.transport.requests.Request())
        headers: dict[str, str] = {}
        self._credentials.apply(headers)
        return headers

    def _found(self) -> Any:
        path = self._config.credentials_file
        if path is not None:
            return service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
                str(path), scopes=_SCOPES
            )
        return google.auth.default(scopes=_SCOPES)[0]
