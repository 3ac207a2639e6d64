from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgate.embedding import Embedding, Pieces
from tests.catalog.work import work_of

numpy = pytest.importorskip("numpy", exc_type=ImportError)
EMBEDDING = Embedding.load()


def nearness(one: str, other: str) -> float:
    return float(EMBEDDING.encode(one) @ EMBEDDING.encode(other))


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("get rid of a record", "delete a row", "send an email"),
        ("take a picture of the page", "capture a screenshot", "list the branches"),
        ("how warm is it outside", "current weather conditions", "merge a pull request"),
        ("shift a document to another directory", "move file", "create invoice"),
    ],
)
def test_texts_that_mean_the_same_are_nearer_than_others(text: str, near: str, far: str) -> None:
    assert nearness(text, near) > nearness(text, far) + 0.1


def test_a_vector_has_length_one_and_does_not_depend_on_case_or_accents() -> None:
    assert float(numpy.linalg.norm(EMBEDDING.encode("Delete a file"))) == pytest.approx(1)
    assert nearness("Café Menü", "cafe menu") == pytest.approx(1)


@pytest.mark.parametrize("text", ["", "  \n", "查询火车票余票", "\0"])
def test_a_text_without_a_known_word_has_no_direction(text: str) -> None:
    assert not EMBEDDING.encode(text).any()


def test_many_texts_have_the_vectors_that_each_has_alone() -> None:
    texts = ["move a file", "", "send mail"]
    assert numpy.allclose(EMBEDDING.encode_all(texts), [EMBEDDING.encode(text) for text in texts])


def test_a_word_is_split_into_the_longest_pieces_from_the_left() -> None:
    pieces = Pieces(["un", "unable", "##able", "##s", "a", "##b"])
    assert pieces.of("unable") == [1]
    assert pieces.of("unables UNABLE") == [1, 3, 1]
    assert pieces.of("ab") == [4, 5]
    assert pieces.of("unknown a") == [4]


@given(st.text())
def test_any_text_has_a_vector(text: str) -> None:
    assert EMBEDDING.encode(text).shape == (EMBEDDING.dimensions,)


def test_the_work_for_a_text_is_bounded() -> None:
    def work(length: int) -> int:
        return work_of(partial(Embedding.load().encode, "".join(chr(97 + at * 7 % 26) for at in range(length))))

    assert work(1_000_000) == work(10_000)


def test_a_table_that_is_cut_off_is_an_error_of_one_kind(tmp_path: Path) -> None:
    from mcpgate.embedding import TABLE

    (tmp_path / "cut.npz").write_bytes(TABLE.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="not a table"):
        Embedding.load(tmp_path / "cut.npz")
