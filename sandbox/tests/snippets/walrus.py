# assignment expressions
# result: [10, [[0, 1, 2], [3, 4, 5], [6]], [36, 49, 64, 81]]
# stdout: "10 rows\n"
rows = t.rows(count=10)
if (size := len(rows)) > 5:
    print(f"{size} rows")
remaining = list(range(7))
chunks = []
while chunk := remaining[:3]:
    chunks.append(chunk)
    remaining = remaining[3:]
squares = [square for row in rows if (square := row["n"] ** 2) > 30]
[size, chunks, squares]
