# recursion over a nested structure
# result: [3, [1, 2, 3, 4, 5], 610]
def depth(tree):
    if not isinstance(tree, dict) or not tree:
        return 0
    return 1 + max(depth(child) for child in tree.values())


def flatten(value):
    if isinstance(value, list):
        result = []
        for item in value:
            result.extend(flatten(item))
        return result
    return [value]


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


[depth({"a": {"b": {"c": 1}}, "d": {}}), flatten([1, [2, [3, [4]], 5]]), fib(15)]
