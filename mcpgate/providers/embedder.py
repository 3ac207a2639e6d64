"""An endpoint that makes vectors of texts, in OpenAI's format."""

import base64
import struct
from collections.abc import Sequence

import httpx2

from mcpgate.cache.entry import CacheUnavailable
from mcpgate.config.cache import EmbedderConfig

_MOST_BYTES = 4 * 1024 * 1024


class HttpEmbedder:
    """Implements cache.semantic.semantic.Embedder."""

    def __init__(self, config: EmbedderConfig) -> None:
        key = config.api_key
        headers = {} if key is None else {"authorization": f"Bearer {key.get_secret_value()}"}
        self._config = config
        self._client = httpx2.AsyncClient(headers=headers, timeout=config.timeout_s)

    async def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """Raises CacheUnavailable."""
        where = f"{self._config.base_url.rstrip('/')}/embeddings"
        body = {"model": self._config.model, "input": list(texts)}
        try:
            async with self._client.stream("POST", where, json=body) as answer:
                data = bytearray()
                async for piece in answer.aiter_bytes():
                    data += piece
                    if len(data) > _MOST_BYTES:
                        raise CacheUnavailable(f"the embedder's answer is over {_MOST_BYTES:,} bytes")
                if answer.status_code != 200:
                    raise CacheUnavailable(f"the embedder answered HTTP {answer.status_code}")
            found = sorted(httpx2.Response(200, content=bytes(data)).json()["data"], key=lambda one: one["index"])
            vectors = [_numbers(one["embedding"]) for one in found]
        except (httpx2.HTTPError, ValueError, KeyError, TypeError, struct.error) as error:
            raise CacheUnavailable(f"the embedder cannot be used: {error!r}") from error
        if len(vectors) != len(texts) or not all(vectors):
            raise CacheUnavailable("the embedder answered with other texts than it was asked for")
        return vectors


def _numbers(vector: str | list[float]) -> list[float]:
    if isinstance(vector, str):
        data = base64.b64decode(vector)
        return list(struct.unpack(f"<{len(data) // 4}f", data))
    return [float(number) for number in vector]
