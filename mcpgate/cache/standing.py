"""What the cache holds, and what it has saved according to the ledger."""

from collections.abc import Mapping
from typing import Any

from mcpgate.cache.cache import Cache
from mcpgate.config.cache import CacheConfig
from mcpgate.governance.ledger import make_query
from mcpgate.governance.records import HITS, to_usd
from mcpgate.governance.store import Ledger


async def standing(cache: Cache, config: CacheConfig, ledger: Ledger, since: str) -> Mapping[str, Any]:
    """As JSON. `since`: a date, a time, or a period like 7d. Raises InvalidRequest, CacheUnavailable,
    StoreUnavailable."""
    totals = await cache.totals()
    rows = {row["cache"]: row for row in await ledger.report(make_query(["cache"], {}, since, None, cache.now()))}
    hits = {how: rows[how]["entries"] if how in rows else 0 for how in HITS}
    misses = rows["miss"]["entries"] if "miss" in rows else 0
    asked = sum(hits.values()) + misses
    saved = [rows[how] for how in HITS if how in rows]
    return {
        "enabled": config.enabled,
        "semantic": config.enabled and config.semantic.enabled,
        "shadow": config.shadow,
        "store": cache.store.name,
        "entries": sum(one.entries for one in totals),
        "bytes": sum(one.bytes for one in totals),
        "kinds": {one.kind: {"entries": one.entries, "bytes": one.bytes} for one in totals},
        "hits": hits,
        "misses": misses,
        "hit_rate": round(sum(hits.values()) / asked, 4) if asked else None,
        "saved_usd": f"{to_usd(sum(row['cost_saved'] for row in saved)):f}",
        "saved_tokens": sum(row["model_tokens_saved"] for row in saved),
    }
