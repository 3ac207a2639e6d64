"""LiteLLM's proxy with its Rust core: `python litellm_rust.py ARGUMENTS OF litellm…`.

Runs in the environment of that package, so it imports nothing of ours. In 1.110.2 the proxy gives every call a shared
aiohttp session, and a call with a session of its caller's never goes to the Rust core, whatever is set. Here there is
no such session, so that Rust can be measured at all."""

from litellm.proxy import proxy_server  # type: ignore[import-not-found]
from litellm.proxy.proxy_cli import run_server  # type: ignore[import-not-found]


async def _no_session() -> None:
    return None


proxy_server.initialize_shared_aiohttp_session = _no_session
run_server()
