# many calls in a list, without await
# result: {"sums": [13, 11, 12], "sorted": [11, 12, 13], "joined": "left+right"}
numbers = [3, 1, 2]
sums = [t.add(a=n, b=10) for n in numbers]
both = [t.echo(value="left"), t.echo(value="right")]
{"sums": sums, "sorted": sorted(sums), "joined": "+".join(both)}
