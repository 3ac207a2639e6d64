# random with a seed, and uuid
# result: [true, true, true, 3, true, "only", "12345678", true, "cfbff0d1-9375-5685-968c-48ce8b15ae17"]
import random
import uuid

random.seed(42)
first = [random.randint(1, 6) for _ in range(5)]
random.seed(42)
again = [random.randint(1, 6) for _ in range(5)]
deck = list(range(10))
random.shuffle(deck)
picked = random.sample(deck, 3)
fixed = uuid.UUID("12345678-1234-5678-1234-567812345678")
[
    first == again,
    all(1 <= n <= 6 for n in first),
    sorted(deck) == list(range(10)),
    len(set(picked)),
    0 <= random.random() < 1,
    random.choice(["only"]),
    fixed.hex[:8],
    uuid.uuid4() != uuid.uuid4(),
    str(uuid.uuid5(uuid.NAMESPACE_DNS, "example.com")),
]
