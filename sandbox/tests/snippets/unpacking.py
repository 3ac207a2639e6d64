# star unpacking of lists, dicts and arguments
# result: [0, [1, 2, 3, 4], 5, [2, 1, 3], {"color": "red", "size": 2, "shape": "round"}, {"color": "red", "size": 5}, [1, 2, 3, 4, "x", "y"], [0, "k", 4], 31]
def total(*numbers, scale=1, **options):
    return sum(numbers) * scale + len(options)


first, *middle, last = range(6)
(a, b), c = (1, 2), 3
a, b = b, a
defaults = {"color": "red", "size": 1}
merged = {**defaults, "size": 2, **{"shape": "round"}}
joined = [*middle, *"xy"]
for i, (name, count) in enumerate({"k": 4}.items()):
    pair = [i, name, count]
[
    first,
    middle,
    last,
    [a, b, c],
    merged,
    defaults | {"size": 5},
    joined,
    pair,
    total(*[1, 2], **{"scale": 10, "extra": 0}),
]
