"""What is left of a gateway in Python that decides nothing.

    python -m benchmarks.llm_overhead.forwarder PORT PROVIDER

uvicorn with httptools on one side, mcpgate's client to providers on the other, and only bytes between them: no gateway
on these two can be cheaper.
"""

import asyncio
import sys
from typing import Any

import uvicorn

from mcpgate.providers.http1 import Pool

_PATIENCE_S = 60.0


def app(pool: Pool) -> Any:
    async def forward(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        headers = {"content-type": "application/json"}
        answer = await pool.send("POST", scope["path"], headers, body, _PATIENCE_S, _PATIENCE_S)
        told = [(b"content-type", answer.headers["content-type"].encode())]
        await send({"type": "http.response.start", "status": answer.status, "headers": told})
        async for piece in answer.chunks():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        await answer.aclose()

    return forward


async def main(port: int, provider: int) -> None:
    pool = Pool("provider", f"http://127.0.0.1:{provider}", _PATIENCE_S, None)
    config = uvicorn.Config(
        app(pool), port=port, log_level="warning", access_log=False, lifespan="off", http="httptools"
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
