# keep the rows that match, and one field of each
# result: ["row 0", "row 2", "row 4"]
rows = t.rows(count=6)
even = [row["name"] for row in rows if row["n"] % 2 == 0]
even
