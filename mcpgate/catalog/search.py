"""Ranked search over tools: BM25 over name, server, parameters and descriptions, tolerant of word forms,
synonyms and typos. Pure and immutable: one index per snapshot.

BM25: Robertson & Zaragoza, "The Probabilistic Relevance Framework", 2009; term frequencies are weighted by
field before saturation (BM25F). Figures are in benchmarks/discovery/.
"""

import math
import re
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice, takewhile
from typing import Protocol

from mcpgate.catalog.tools import Tool

_K1, _B = 1.5, 0.75
_NAME, _SERVER, _PARAMETER, _FIRST, _REST = 1.3, 2.5, 0.3, 1.0, 0.45
"""Weights of a word in the name, the server's name, a parameter's name, the first sentence, the rest; found by random
search on half of the requests of benchmarks/discovery, and confirmed on the other half."""
_EXPLAINED = 0.1
"""Weight of a word in what is said of a parameter."""
_SYNONYM = 0.55
_MAX_QUERY = 1_000
_MAX_QUERY_WORDS = 32
"""Characters and words of a request that are used."""
_MAX_WORD = 40
_MAX_NAME = 200
_MAX_PARAMETERS = 200
"""Characters of a word, characters of a name, and parameters of a tool that are used."""
_MAX_GUESSED = 8
_MAX_VOCABULARY = 100_000
_MAX_PREFIXED = 50
"""Words of a request that may be typing errors, words that they are compared with, and words that begin alike."""
_LEAST_PART = 0.5
"""Of a word's letters, those of a known word that it begins with, at least."""
_MAX_WORDS = 160
"""Words indexed per description; some servers ship whole manuals."""
_MAX_EXPLAINED = 30
_MAX_EXPLANATION = 300
_MAX_EXPLANATION_WORDS = 20
"""Parameters whose descriptions are indexed; characters and words of each that count."""

_STOP = frozenset(
    (
        "a an the of to in on at by for from with and or is are be was were this that these those it its as "
        "into my me i we our your you what which how do does can could please want need all any some will "
        "would there has have if not no so then than when where who whose about via using use used tool "
        "returns return"
    ).split()
)

_GROUPS = (
    "create make add new insert build generate",
    "delete remove erase drop destroy clear",
    "get fetch read retrieve show view display",
    "list enumerate browse index",
    "search find query lookup seek locate",
    "update edit modify change set patch alter adjust",
    "send post submit publish deliver",
    "run execute invoke launch start trigger",
    "stop cancel terminate end abort kill",
    "file document",
    "folder directory dir",
    "message mail email",
    "picture image photo screenshot",
    "issue ticket bug",
    "pull merge request pr mr",
    "repository repo project",
    "table sheet worksheet",
    "spreadsheet workbook excel xlsx",
    "row record entry line",
    "column field",
    "copy duplicate clone",
    "move rename",
    "upload import",
    "download export save",
    "user person member people account",
    "comment note reply",
    "convert transform translate",
    "time date clock",
    "schedule calendar event meeting",
    "presentation slide deck powerpoint",
    "word docx",
    "picture chart graph plot diagram",
    "price cost billing",
    "log history",
    "database db sql",
    "cache key",
    "compute calculate evaluate math",
    "permission access role",
    "server machine instance host vm",
    "text string content",
    "link url href",
    "summary summarize summarise overview",
    "status state health",
    "metric statistic stat",
    "page tab",
    "label tag",
    "branch ref",
    "difference diff compare",
    "join combine merge concat",
    "task todo",
)
"""Words that users and tools use interchangeably; each line is a group."""


class Ranking(Protocol):
    """Ranks tools by more than their words: meanings.py."""

    def order(self, query: str, scores: Mapping[int, float]) -> list[int]:
        """The places of tools, best first; `scores`: of those that share words with the query."""


class SearchIndex:
    """An index over a fixed list of tools."""

    def __init__(self, tools: Sequence[Tool], before: "SearchIndex | None" = None) -> None:
        """What `before` holds of the same tools is taken over: their words are most of the work."""
        self.tools = tools
        self._lengths: list[float]
        self._names: list[frozenset[str]]
        self._postings: dict[str, list[tuple[int, float]]]
        self._spelt: dict[str, str]
        """Words as they are written → their stems: typing errors are made in words, not in stems."""
        postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        lengths: dict[int, float] = {}
        spelt: dict[str, str] = {}
        names: dict[int, frozenset[str]] = {}
        if before is not None:
            places = {tool: number for number, tool in enumerate(tools)}
            kept = {old: places[tool] for old, tool in enumerate(before.tools) if tool in places}
            for word, posting in before._postings.items():
                if left := [(kept[old], weight) for old, weight in posting if old in kept]:
                    postings[word] = left
            spelt = {surface: word for surface, word in before._spelt.items() if word in postings}
            lengths = {number: before._lengths[old] for old, number in kept.items()}
            names = {number: before._names[old] for old, number in kept.items()}
        for number, tool in enumerate(tools):
            if number in lengths:
                continue
            time.sleep(0)  # in a thread, lets the event loop run now and not 5 ms later
            weights = _weigh(tool, spelt)
            lengths[number] = sum(weights.values())
            names[number] = frozenset(words(tool.name[:_MAX_NAME])) | frozenset(words(tool.server))
            for word, weight in weights.items():
                postings[word].append((number, weight))
        self._lengths = [lengths[number] for number in range(len(tools))]
        average = sum(self._lengths) / len(tools) if tools else 1.0
        self._norms = [_K1 * (1 - _B + _B * length / average) for length in self._lengths]
        self._postings = dict(postings)
        self._spelt = dict(islice(spelt.items(), _MAX_VOCABULARY))
        self._sorted = sorted(term for term in self._postings if len(term) >= 4)
        self._names = [names[number] for number in range(len(tools))]
        self._named: dict[str, list[int]] = defaultdict(list)
        """A name without its separators → the tools that have it."""
        for number, tool in enumerate(tools):
            self._named[_squeeze(tool.name)].append(number)

    def search(
        self,
        query: str,
        limit: int,
        server: str | None = None,
        among: Container[int] | None = None,
        meanings: Ranking | None = None,
    ) -> list[Tool]:
        """The best matches, best first; at most `limit`, and only tools whose `id()` is in `among` if that is given.
        An empty list when no word of the query is known. With `meanings`, its meaning counts as well."""
        query = query[:_MAX_QUERY]
        scores = self._score(query)
        if not scores:
            return []
        ranked = meanings.order(query, scores) if meanings else sorted(scores, key=lambda n: (-scores[n], n))
        if named := self._named.get(_squeeze(query)):
            ranked.sort(key=lambda n: n not in named)
        return self._chosen(ranked, limit, server, among)

    def nearest(
        self, query: str, limit: int, meanings: Ranking, server: str | None = None, among: Container[int] | None = None
    ) -> list[Tool]:
        """The tools that mean what the query does, whatever their words."""
        return self._chosen(meanings.order(query[:_MAX_QUERY], {}), limit, server, among)

    def _chosen(
        self, ranked: Iterable[int], limit: int, server: str | None, among: Container[int] | None
    ) -> list[Tool]:
        tools = (self.tools[number] for number in ranked)
        return list(
            islice(
                (
                    tool
                    for tool in tools
                    if (server is None or tool.server == server) and (among is None or id(tool) in among)
                ),
                limit,
            )
        )

    def _score(self, query: str) -> dict[int, float]:
        """The place of each tool that shares a word with the query, and how well it matches."""
        written: dict[str, str] = {}
        for surface in surface_words(query):
            written.setdefault(stem(surface), surface)
        wanted = list(written)[:_MAX_QUERY_WORDS]
        guesses = _MAX_GUESSED
        scores: dict[int, float] = defaultdict(float)
        matched: dict[int, float] = defaultdict(float)
        total = 0.0
        for word in wanted:
            best: dict[int, float] = {}
            weight_of_word = 0.0
            is_new = word not in self._postings and len(written[word]) >= 4
            guesses -= is_new
            # A rare synonym must not outweigh the word itself.
            most = self._idf(word) if word in self._postings else math.inf
            for term, factor in self._variants(word, written[word] if is_new and guesses >= 0 else ""):
                posting = self._postings[term]
                idf = min(self._idf(term), most)
                weight_of_word = max(weight_of_word, idf * factor)
                for number, weight in posting:
                    score = factor * idf * weight * (_K1 + 1) / (weight + self._norms[number])
                    if score > best.get(number, 0.0):
                        best[number] = score
            total += weight_of_word
            for number, score in best.items():
                scores[number] += score
                matched[number] += weight_of_word
        asked = frozenset(wanted)
        for number in scores:
            # Tools that match more of the request rank above ones that repeat one word of it, and a name that is
            # entirely in the request is a strong signal.
            scores[number] *= 0.4 + 0.6 * matched[number] / (total or 1.0)
            name = self._names[number]
            scores[number] *= 1 + 0.5 * len(name & asked) / (len(name) or 1)
        return scores

    def _idf(self, term: str) -> float:
        seen = len(self._postings[term])
        return math.log(1 + (len(self.tools) - seen + 0.5) / (seen + 0.5))

    def _variants(self, word: str, surface: str) -> list[tuple[str, float]]:
        """Terms for a word, and what each counts. `surface`: the word as written, if it may be a typing error."""
        found = {word: 1.0} if word in self._postings else {}
        for other in _synonyms().get(word, ()):
            if other in self._postings:
                found.setdefault(other, _SYNONYM)
        if surface:
            # Not a known word: a typing error, or a part or a compound of known ones.
            for term, factor in self._respelt(surface):
                found.setdefault(term, factor)
            for term in self._beginning_alike(word):
                found.setdefault(term, 0.6)
        return list(found.items())

    def _respelt(self, surface: str) -> Iterator[tuple[str, float]]:
        from rapidfuzz import process  # 26 ms that the first tools/list should not wait for
        from rapidfuzz.distance import OSA

        most = 1 if len(surface) < 8 else 2
        near = process.extract(surface, self._spelt.keys(), scorer=OSA.distance, limit=4, score_cutoff=most)
        for known, distance, _ in near:
            yield self._spelt[known], 0.8 * (1 - distance / len(surface)) ** 2

    def _beginning_alike(self, word: str) -> Iterator[str]:
        """Terms that begin with the word, and terms that the word begins with."""
        start = bisect_left(self._sorted, word)
        yield from takewhile(lambda term: term.startswith(word), self._sorted[start : start + _MAX_PREFIXED])
        least = max(4, math.ceil(len(word) * _LEAST_PART))
        yield from (word[:end] for end in range(least, len(word)) if word[:end] in self._postings)


def _weigh(tool: Tool, spelt: dict[str, str]) -> dict[str, float]:
    """Stem → weight. Notes in `spelt` how its words are written."""

    def stems(text: str, most: int | None = None) -> Iterator[str]:
        for surface in islice(surface_words(text), most):
            yield spelt.setdefault(surface, stem(surface))

    weights: dict[str, float] = defaultdict(float)
    for text, weight in ((tool.name[:_MAX_NAME], _NAME), (tool.server, _SERVER)):
        for word in dict.fromkeys(stems(text)):
            weights[word] += weight
    for name in islice(tool.properties, _MAX_PARAMETERS):
        for word in stems(name[:_MAX_NAME]):
            weights[word] += _PARAMETER
    for schema in islice(tool.properties.values(), _MAX_EXPLAINED):
        about = schema.get("description") if isinstance(schema, dict) else None
        if isinstance(about, str):
            for word in dict.fromkeys(stems(about[:_MAX_EXPLANATION], _MAX_EXPLANATION_WORDS)):
                weights[word] += _EXPLAINED
    first, _, rest = tool.description.partition(". ")
    title = tool.raw.get("title")
    for word in stems(f"{title[:_MAX_NAME]} {first}" if isinstance(title, str) else first, 60):
        weights[word] += _FIRST
    for word in stems(rest, _MAX_WORDS):
        weights[word] += _REST
    return weights


_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile("([\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+)")
"""Kana and Han: words stand without spaces between them."""


def words(text: str) -> list[str]:
    """The stems of a text's words; camelCase and snake_case split, common words left out."""
    return [stem(word) for word in surface_words(text)]


def surface_words(text: str) -> Iterator[str]:
    """A text's words in lower case, without common ones. What is written without spaces comes as pairs of signs."""
    for run in _WORD.findall(_CAMEL.sub(" ", text[:20_000])):
        for part in _UNSPACED.split(run) if not run.isascii() else (run,):
            if _UNSPACED.match(part):
                yield from (part[at : at + 2] for at in range(max(1, len(part) - 1)))
            elif (word := part.lower()[:_MAX_WORD]) and word not in _STOP:
                yield word


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """A word without its inflection: files → file, queries → query, running → run, created → creat."""
    if len(word) <= 3 or not word.isascii():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for suffix in ("ations", "ation", "ing", "ed", "ion", "ment", "er", "or"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and re.search(r"[aeiouy]", word[: -len(suffix)]):
            word = word[: -len(suffix)]
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


@lru_cache(maxsize=1)
def _synonyms() -> dict[str, frozenset[str]]:
    table: dict[str, set[str]] = defaultdict(set)
    for group in _GROUPS:
        stems = [stem(word) for word in group.split()]
        for word in stems:
            table[word].update(s for s in stems if s != word)
    return {word: frozenset(others) for word, others in table.items()}


def _squeeze(text: str) -> str:
    return re.sub(r"[\W_]+", "", text[:_MAX_NAME]).lower()
