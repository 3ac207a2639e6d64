"""TensorZero's gateway over HTTP, from its Python package: `python tensorzero_gateway.py CONFIG`. Prints its address.

Runs in the environment of that package, so it imports nothing of ours. Ends with its input."""

import sys

from tensorzero import _start_http_gateway  # type: ignore[import-not-found]

gateway = _start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
print(gateway.base_url, flush=True)
sys.stdin.read()
