# asyncio.gather over tool calls, with errors among them
# result: [[1, 2, 3], ["a", "b", "c"], 1, true]
import asyncio


async def load(n):
    rows = await t.rows(count=n)
    return len(rows)


sizes = await asyncio.gather(*[load(n) for n in (1, 2, 3)])
echoed = await asyncio.gather(*(t.echo(value=v) for v in "abc"))
mixed = await asyncio.gather(t.echo(value=1), t.fail(message="no"), return_exceptions=True)
[list(sizes), list(echoed), mixed[0], isinstance(mixed[1], ToolError)]
