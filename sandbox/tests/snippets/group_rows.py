# group rows and count each group
# result: {"groups": {"even": [0, 2, 4, 6], "odd": [1, 3, 5]}, "counts": {"even": 4, "odd": 3}}
# stdout: "groups: even, odd\n"
groups = {}
for row in t.rows(count=7):
    key = "even" if row["n"] % 2 == 0 else "odd"
    groups.setdefault(key, []).append(row["n"])
counts = {}
for key, members in groups.items():
    for _ in members:
        counts[key] = counts.get(key, 0) + 1
print("groups:", ", ".join(sorted(groups)))
{"groups": groups, "counts": counts}
