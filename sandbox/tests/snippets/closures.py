# nested functions, closures and nonlocal
# result: [17, [10, 11, 12]]
def make_counter(start):
    count = start

    def increment(by=1):
        nonlocal count
        count += by
        return count

    return increment


counter = make_counter(10)
counter()
counter(5)
adders = [lambda x, n=n: x + n for n in range(3)]
[counter(), [add(10) for add in adders]]
