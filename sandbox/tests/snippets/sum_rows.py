# sum over the rows of a tool
# result: {"total": 10, "largest": "row 2"}
total = sum(x["n"] for x in t.rows(count=5))
largest = max(t.rows(), key=lambda row: row["n"])
{"total": total, "largest": largest["name"]}
