# comprehensions of all four kinds
# result: [[5, 3, 6, 4, 3], ["a", "b", "c", "d"], {"apple": 0, "bob": 4, "cherry": 2}, 15, [[1, 0], [2, 0], [2, 1]]]
words = ["apple", "bob", "cherry", "date", "bob"]
lengths = [len(word) for word in words]
unique = {word[0] for word in words}
index = {word: i for i, word in enumerate(words) if word != "date"}
total = sum(len(word) for word in words if "e" in word)
pairs = [(x, y) for x in range(3) for y in range(x)]
[lengths, sorted(unique), index, total, [list(pair) for pair in pairs]]
