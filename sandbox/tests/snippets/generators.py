# generator functions, yield from, send
# result: [[[1, 2], [3, 4], [5]], ["a", "b", 0, 1], 15.0, [0, 1, 4, 9, 16]]
def batches(items, size):
    for start in range(0, len(items), size):
        yield items[start : start + size]


def chain(*sources):
    for source in sources:
        yield from source


def averager():
    total, count, average = 0, 0, None
    while True:
        value = yield average
        total += value
        count += 1
        average = total / count


def naturals():
    n = 0
    while True:
        yield n
        n += 1


running = averager()
next(running)
running.send(10)
small = []
for n in naturals():
    if n > 4:
        break
    small.append(n * n)
[list(batches([1, 2, 3, 4, 5], 2)), list(chain("ab", range(2))), running.send(20), small]
