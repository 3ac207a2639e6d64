# a whole script: sets, slices, del, global, lambda, print, main()
# result: {"numbers": [9, 8, 7, 6, 5, 4, 3], "picked": [9, 7, 5], "reversed": "cba", "sets": [[3, 4], [1, 2, 3, 4, 9], [1, 2], [2, 3, 4, 8], true], "config": {"keep": 1}, "squares": [81, 36, 9], "calls": 1, "any": [true, true], "zip": {"a": 1, "b": 2}}
# stdout: "a-b!\n[8, 7] 3\n"
import sys

LIMIT = 3
calls = 0


def pick(items: list[int], step: int = 2) -> list[int]:
    global calls
    calls += 1
    return items[::step][:LIMIT]


def main() -> dict:
    numbers = list(range(10, 0, -1))
    del numbers[0], numbers[-2:]
    config = {"keep": 1, "drop": 2}
    del config["drop"]
    left, right = {1, 2, 3, 4}, {3, 4, 5}
    right.discard(5)
    square = lambda n: n * n
    print("a", "b", sep="-", end="!\n")
    print(numbers[1:3], numbers[-1], file=sys.stdout)
    return {
        "numbers": numbers,
        "picked": pick(numbers),
        "reversed": "abc"[::-1],
        "sets": [sorted(left & right), sorted(left | {9}), sorted(left - right), sorted(left ^ {1, 8}), right <= left],
        "config": config,
        "squares": list(map(square, filter(lambda n: n % 3 == 0, numbers))),
        "calls": calls,
        "any": [any(n > 8 for n in numbers), all(numbers)],
        "zip": dict(zip("ab", [1, 2])),
    }


if __name__ == "__main__":
    result = main()
result
