# functools: reduce, lru_cache, partial
# result: [24, 165580141, [1, 2], 42]
from functools import cache, lru_cache, partial, reduce


@lru_cache(maxsize=None)
def steps(n):
    return 1 if n <= 1 else steps(n - 1) + steps(n - 2)


@cache
def slow(n):
    computed.append(n)
    return n * 2


computed = []
slow(1), slow(1), slow(2)
double = partial(lambda a, b: a * b, 2)
[reduce(lambda a, b: a * b, [1, 2, 3, 4], 1), steps(40), computed, double(21)]
