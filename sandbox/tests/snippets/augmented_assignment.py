# counting with d[k] += 1 and its kin
# result: [{"the": 3, "cat": 1, "and": 2, "dog": 1, "bird": 1}, [[-1, 0, 0], [0, 0, 5]], 14, 27, "bird!"]
text = "the cat and the dog and the bird"
counts = {}
for word in text.split():
    if word not in counts:
        counts[word] = 0
    counts[word] += 1
grid = [[0] * 3 for _ in range(2)]
grid[1][2] += 5
grid[0][0] -= 1
flags = 0b0101
flags |= 0b0010
flags <<= 1
total = 7
total //= 2
total **= 3
text += "!"
[counts, grid, flags, total, text[-5:]]
