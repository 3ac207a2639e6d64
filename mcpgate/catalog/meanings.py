"""What each tool of a catalog means, as vectors: ranks tools by what a request means in addition to its words.

The cosine with a tool's vector is added to the score of its words (search.py). A request of rare words has a high score
of its own, so that meaning decides the less the more the words say; a sum of ranks would let the weaker of the two
count as much as the stronger. Figures are in docs/benchmarks/discovery.md.
"""

from collections.abc import Mapping, Sequence

from mcpgate.catalog.search import surface_words
from mcpgate.catalog.tools import Tool
from mcpgate.embedding import Embedding

_WEIGHT = 15.0
"""Score of a cosine of 1; from 10 to 30 the results are alike."""
_NEAR = 0.3
"""Cosine from which a tool is an answer that shares no word with the request. Requests that mean nothing have a cosine
below it with every tool."""
_LONGEST_NAME = 200
_LONGEST_ABOUT = 300
"""Characters of a name and of a description that count."""


class Meanings:
    """The vectors of a fixed list of tools. Not to be searched before `missing` is 0."""

    def __init__(self, embedding: Embedding, tools: Sequence[Tool], before: "Meanings | None" = None) -> None:
        """What `before` knows of the same tools is taken over."""
        self._embedding = embedding
        self._places = {tool: place for place, tool in enumerate(tools)}
        self._rows = embedding.encode_all([""] * len(tools))
        self._waiting = []
        for tool, place in self._places.items():
            known = before._places.get(tool) if before else None
            if before is None or known is None:
                self._waiting.append(tool)
            else:
                self._rows[place] = before._rows[known]

    @property
    def missing(self) -> int:
        """Tools that are not learned yet."""
        return len(self._waiting)

    def learn(self, most: int) -> None:
        """Encode so many of the missing ones."""
        some, self._waiting = self._waiting[:most], self._waiting[most:]
        self._rows[[self._places[tool] for tool in some]] = self._embedding.encode_all(map(_text, some))

    def order(self, query: str, scores: Mapping[int, float]) -> list[int]:
        """The places of tools that match in words, with the scores given, or in meaning; best first."""
        import numpy

        near = self._rows @ self._embedding.encode(query)
        wanted = near >= _NEAR
        total = _WEIGHT * near
        if scores:
            places = numpy.fromiter(scores.keys(), numpy.intp, len(scores))
            wanted[places] = True
            total[places] += numpy.fromiter(scores.values(), numpy.float32, len(scores))
        found = numpy.flatnonzero(wanted)
        order: list[int] = found[numpy.argsort(-total[found], kind="stable")].tolist()
        return order


def _text(tool: Tool) -> str:
    """What is said of a tool, without its server: that is a name, which words find better."""
    return f"{' '.join(surface_words(tool.name[:_LONGEST_NAME]))}: {tool.description[:_LONGEST_ABOUT]}"
