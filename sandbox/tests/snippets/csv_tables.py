# csv, read and written over io.StringIO
# result: ["red, ripe", "said \"no\"", 3.5, "n,name\n0,row 0\n1,row 1\n"]
import csv
import io

text = 'name,price,note\napple,1.5,"red, ripe"\npear,2,"said ""no"""\n'
rows = list(csv.DictReader(io.StringIO(text)))
total = sum(float(row["price"]) for row in rows)
out = io.StringIO()
writer = csv.DictWriter(out, fieldnames=["n", "name"], lineterminator="\n")
writer.writeheader()
writer.writerows(t.rows(count=2))
[rows[0]["note"], rows[1]["note"], total, out.getvalue()]
