# Counter, defaultdict, deque
# result: [[["red", 3], ["blue", 2]], {"b": ["blue"], "g": ["green"], "r": ["red"]}, {"red": 3, "blue": 2, "green": 1}, [3, 9, 2], 7]
from collections import Counter, defaultdict, deque

words = "red blue red green blue red".split()
counts = Counter(words)
counts.update(["green"])
by_letter = defaultdict(list)
for word in sorted(counts):
    by_letter[word[0]].append(word)
seen = defaultdict(int)
for word in words:
    seen[word] += 1
recent = deque(maxlen=3)
for n in range(5):
    recent.append(n)
recent.appendleft(9)
recent.rotate(1)
[
    counts.most_common(2),
    dict(by_letter),
    dict(seen),
    list(recent),
    (counts - Counter("ab")).total(),
]
