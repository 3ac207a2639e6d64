# a helper function that calls a tool, page after page
# result: {"pages": 3, "names": ["ROW 0", "ROW 1", "ROW 2", "ROW 3", "ROW 4", "ROW 5"]}
def fetch(page, size=2):
    rows = t.rows(count=6)
    return rows[page * size : (page + 1) * size]


names = []
page = 0
while True:
    batch = fetch(page)
    if not batch:
        break
    names.extend(row["name"].upper() for row in batch)
    page += 1
{"pages": page, "names": names}
