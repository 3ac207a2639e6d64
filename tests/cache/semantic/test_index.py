"""The nearest stored questions of a partition."""

import threading

import pytest

numpy = pytest.importorskip("numpy")

from mcpgate.cache.semantic.index import Index  # noqa: E402


def _vectors(count: int, seed: int = 0, dimensions: int = 256):  # type: ignore[no-untyped-def]
    rows = numpy.random.default_rng(seed).normal(size=(count, dimensions)).astype("f4")
    rows *= numpy.linspace(2, 0.2, dimensions, dtype="f4")  # the main axes first, as in the static table
    return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)


def test_the_nearest_come_first_and_only_from_the_partition() -> None:
    index, rows = Index(), _vectors(40)
    for at, row in enumerate(rows):
        index.add(b"ours" if at % 2 else b"theirs", str(at), row)
    found = index.nearest(b"ours", rows[7], 3)
    assert found[0][0] == "7"
    assert found[0][1] == pytest.approx(1, abs=0.02)
    assert all(int(id) % 2 for id, _ in found)
    assert index.nearest(b"nobody's", rows[7], 3) == []


def test_a_large_partition_finds_what_is_there() -> None:
    index, rows = Index(), _vectors(5_000)
    for at, row in enumerate(rows):
        index.add(b"", str(at), row)
    assert [index.nearest(b"", row, 1)[0][0] for row in rows[::100]] == [str(at) for at in range(0, 5_000, 100)]


def test_what_is_removed_is_not_found_and_its_memory_is_given_back() -> None:
    index, rows = Index(), _vectors(1_000)
    for at, row in enumerate(rows):
        index.add(b"", str(at), row)
    before = index.bytes_used()
    assert all(index.remove(str(at)) for at in range(10, 1_000))
    assert not index.remove("10")
    assert index.nearest(b"", rows[500], 20) == index.nearest(b"", rows[500], 10)
    assert index.nearest(b"", rows[3], 1)[0][0] == "3"
    assert index.bytes_used() < before / 8
    for at in range(10):
        index.remove(str(at))
    assert index.bytes_used() == 0


def test_a_full_index_says_what_had_to_go() -> None:
    index, rows = Index(max_entries=3), _vectors(5)
    assert [index.add(b"", str(at), row) for at, row in enumerate(rows)] == [[], [], [], ["0"], ["1"]]
    assert len(index) == 3


def test_an_id_has_one_vector() -> None:
    index, rows = Index(), _vectors(2)
    index.add(b"", "a", rows[0])
    index.add(b"", "a", rows[1])
    assert len(index) == 1
    assert index.nearest(b"", rows[1], 5)[0][1] == pytest.approx(1, abs=0.02)


def test_vectors_of_another_length_are_refused_and_find_nothing() -> None:
    index, rows = Index(), _vectors(1)
    index.add(b"", "a", rows[0])
    with pytest.raises(ValueError, match="384 numbers, those of its partition 256"):
        index.add(b"", "b", numpy.ones(384))
    assert index.nearest(b"", numpy.ones(384), 1) == []


def test_threads_may_add_remove_and_ask_at_once() -> None:
    index, rows, start = Index(200), _vectors(400), threading.Barrier(4)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            start.wait(5)
            for at in range(number, 400, 4):
                index.add(b"", str(at), rows[at])
                index.nearest(b"", rows[at], 5)
                index.remove(str(at - 40))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert len(index) <= 200
