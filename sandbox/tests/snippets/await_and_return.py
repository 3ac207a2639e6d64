# top-level await and a top-level return
# result: {"total": 6, "rows": 4}
rows = await t.rows(count=4)
total = 0
for row in rows:
    total = await t.add(a=total, b=row["n"])
if total > 5:
    return {"total": total, "rows": len(rows)}
return "too few"
