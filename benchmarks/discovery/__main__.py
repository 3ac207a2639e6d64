"""How often the right tool is among the first tools that a search finds, how often it is in the answer of list_tools,
which has room for 300 tokens, and how fast the search is; with and without the table of meanings, where numpy is there.

    python -m benchmarks.servers install discovery && python -m benchmarks.servers capture discovery
    python -m benchmarks.discovery [--misses]

324 requests in natural language (requests.jsonl) against the catalogs of 30 real servers. docs/benchmarks/discovery.md
says how they were written. Compared with plain BM25 over name and description, as in FastMCP's Code Mode, and with
a substring search. Speed is measured on the same tools repeated to 7,500.
"""

import argparse
import json
import math
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import servers
from benchmarks.discovery.answers import shown_tools
from mcpgate.catalog.catalog import Catalog, ServerListing
from mcpgate.catalog.meanings import Meanings
from mcpgate.catalog.search import SearchIndex
from mcpgate.catalog.tools import Tool
from mcpgate.codemode.listing import Listing
from mcpgate.config.settings import CodeModeConfig
from mcpgate.embedding import Embedding
from mcpgate.tokens import count

Search = Callable[[str, int], Sequence[Tool]]
FULL_SIZE = 7_500


def bm25(tools: Sequence[Tool]) -> Search:
    """Okapi BM25 over the words of name and description, k1 = 1.5, b = 0.75; no stems, no typos."""
    texts = [_plain_words(f"{tool.name} {tool.description}") for tool in tools]
    counts = [Counter(words) for words in texts]
    frequency = Counter(word for words in texts for word in set(words))
    average = sum(map(len, texts)) / len(texts)

    def search(query: str, limit: int) -> Sequence[Tool]:
        def score(number: int) -> float:
            total = 0.0
            for word in _plain_words(query):
                if seen := counts[number].get(word, 0):
                    idf = math.log(1 + (len(tools) - frequency[word] + 0.5) / (frequency[word] + 0.5))
                    total += idf * seen * 2.5 / (seen + 1.5 * (0.25 + 0.75 * len(texts[number]) / average))
            return total

        scored = sorted(((score(n), -n) for n in range(len(tools))), reverse=True)[:limit]
        return [tools[-n] for value, n in scored if value > 0]

    return search


def substring(tools: Sequence[Tool]) -> Search:
    """Tools that contain most of the request's words, anywhere."""
    texts = [f"{tool.name} {tool.description}".lower() for tool in tools]

    def search(query: str, limit: int) -> Sequence[Tool]:
        words = [word for word in query.lower().split() if len(word) > 2]
        scored = sorted(((sum(w in text for w in words), -n) for n, text in enumerate(texts)), reverse=True)[:limit]
        return [tools[-n] for value, n in scored if value > 0]

    return search


def _plain_words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--misses", action="store_true", help="print the requests that our first five answers miss")
    arguments = parser.parse_args()
    lines = Path(__file__).with_name("requests.jsonl").read_text(encoding="utf-8").splitlines()
    requests = [json.loads(line) for line in lines if line.strip()]
    chosen = servers.select(["discovery"])
    catalog = Catalog.build([ServerListing(s.name, servers.load_tools(s.name)) for s in chosen])
    meaning = _with_meanings(catalog)
    contestants: dict[str, Search] = {
        "mcpgate": catalog.search,
        **({"mcpgate, with meanings": meaning.search} if meaning else {}),
        "BM25": bm25(catalog.tools),
        "substring": substring(catalog.tools),
    }
    print(f"{len(requests)} requests, {len(catalog.tools):,} tools on {len(chosen)} servers; {date.today()},")
    print(f"{platform.machine()}, Python {platform.python_version()}\n")
    print("| search | recall@1 | recall@5 | recall@10 | ms a search, p50 |\n|---|--:|--:|--:|--:|")
    for name, search in contestants.items():
        found = {1: 0, 5: 0, 10: 0}
        times = []
        for request in requests:
            right = set(request["tools"])
            began = time.perf_counter()
            answers = [f"{tool.server}.{tool.name}" for tool in search(request["request"], 10)]
            times.append((time.perf_counter() - began) * 1000)
            for cut in found:
                found[cut] += bool(right & set(answers[:cut]))
            if name == "mcpgate" and arguments.misses and not right & set(answers[:5]):
                print(f"missed: {request['request']!r}\n  wanted {sorted(right)}\n  got    {answers[:5]}")
        rates = " | ".join(f"{found[cut] / len(requests):.1%}" for cut in found)
        print(f"| {name} | {rates} | {statistics.median(times):.2f} |")
    _print_answers("words", catalog, requests)
    if meaning:
        _print_answers("words and meanings", meaning, requests)
    _print_speed(catalog.tools, [request["request"] for request in requests])


def _with_meanings(catalog: Catalog) -> Catalog | None:
    """The same catalog, searched by meaning as well; None without numpy."""
    try:
        embedding = Embedding.load()
    except ImportError:
        return None
    known = Catalog(catalog.servers)
    known.meanings = _learned(embedding, known.tools)
    return known


def _learned(embedding: Embedding, tools: Sequence[Tool]) -> Meanings:
    meanings = Meanings(embedding, tools)
    meanings.learn(len(tools))
    return meanings


def _print_answers(name: str, catalog: Catalog, requests: Sequence[Mapping[str, Any]]) -> None:
    listing = Listing(CodeModeConfig(), lambda tool: None)
    names = {tool.qualified: f"{tool.server}.{tool.name}" for tool in catalog.tools}
    answered, shown, tokens = 0, [], []
    for request in requests:
        text = listing.render(catalog, request["request"], None, None)
        tools = {names[tool] for tool in shown_tools(text)}
        answered += bool(tools & set(request["tools"]))
        shown.append(len(tools))
        tokens.append(count(text))
    print(
        f"\nIn the answer of list_tools, by {name}: {answered / len(requests):.1%}; it shows "
        f"{statistics.mean(shown):.1f} tools in {statistics.mean(tokens):.0f} tokens, {max(tokens)} at most."
    )


def _print_speed(tools: Sequence[Tool], queries: Sequence[str]) -> None:
    many = [
        Tool(f"{tool.server}{copy}", f"{tool.server_ident}{copy}", tool.name, tool.ident, tool.raw)
        for copy in range(-(-FULL_SIZE // len(tools)))
        for tool in tools
    ][:FULL_SIZE]
    began = time.perf_counter()
    index = SearchIndex(many)
    built = time.perf_counter() - began
    print(f"\n{FULL_SIZE:,} tools: index built in {built:.2f} s; a search takes {_times(index, queries, None)}.")
    try:
        embedding = Embedding.load()
    except ImportError:
        return
    began = time.perf_counter()
    meanings = _learned(embedding, many)
    built = time.perf_counter() - began
    print(f"With meanings: encoded in {built:.2f} s; a search takes {_times(index, queries, meanings)}.")


def _times(index: SearchIndex, queries: Sequence[str], meanings: Meanings | None) -> str:
    times = []
    for query in queries:
        began = time.perf_counter()
        index.search(query, 12, meanings=meanings)
        times.append((time.perf_counter() - began) * 1000)
    times.sort()
    return f"{statistics.median(times):.1f} ms (p50), {times[int(len(times) * 0.99)]:.1f} ms (p99)"


if __name__ == "__main__":
    main()
