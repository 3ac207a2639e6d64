# itertools
# result: [{"a": 3, "b": 5}, [1, 2, 3], ["ab", "ac", "ba", "bc", "ca", "cb"], [[0, 1], [0, 2], [1, 2]], [3, 4, 6, 8], [1, 3, 6, 10], [5, 10, 15], [1, 2], [["a", "c"], ["b", "-"]], [3, 6]]
import itertools

rows = [{"team": "a", "n": 1}, {"team": "a", "n": 2}, {"team": "b", "n": 5}]
grouped = {team: sum(r["n"] for r in group) for team, group in itertools.groupby(rows, key=lambda r: r["team"])}
[
    grouped,
    list(itertools.chain.from_iterable([[1, 2], [3]])),
    ["".join(p) for p in itertools.permutations("abc", 2)],
    [list(c) for c in itertools.combinations(range(3), 2)],
    [x * y for x, y in itertools.product([1, 2], [3, 4])],
    list(itertools.accumulate([1, 2, 3, 4])),
    list(itertools.islice(itertools.count(5, 5), 3)),
    list(itertools.takewhile(lambda n: n < 3, [1, 2, 3, 1])),
    [list(pair) for pair in itertools.zip_longest("ab", "c", fillvalue="-")],
    [a + b for a, b in itertools.pairwise([1, 2, 4])],
]
