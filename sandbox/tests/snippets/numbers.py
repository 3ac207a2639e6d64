# statistics and math
# result: [4.8, 4.0, 4.0, 2.9707, [3.0, 4.0, 7.0], 1.414214, 6, 0, 3.0, 10, true, 8.142, 6, true, [2.67, -3, -2, 100000000000000000000]]
import math
import statistics

values = [2.5, 3.5, 4.0, 10.0, 4.0]
[
    statistics.mean(values),
    statistics.median(values),
    statistics.mode(values),
    round(statistics.stdev(values), 4),
    [round(q, 3) for q in statistics.quantiles(values, n=4)],
    round(math.sqrt(2), 6),
    math.gcd(12, 18),
    math.ceil(2.1) + math.floor(-2.1),
    round(math.log10(1000), 6),
    math.comb(5, 2),
    math.isclose(0.1 + 0.2, 0.3),
    round(math.hypot(3, 4) + math.pi, 3),
    math.prod([1, 2, 3]),
    math.isnan(float("nan")),
    [round(2.675, 2), divmod(-7, 3)[0], 7 % -3, 10**20],
]
