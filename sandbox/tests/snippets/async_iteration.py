# async generators, async for, async with, async comprehensions
# result: [[1, 2, 3], ["open", "hello", "close"], [0, 1, 2]]
import asyncio


async def pages(count):
    for page in range(count):
        await asyncio.sleep(0)
        yield await t.rows(count=page + 1)


class Connection:
    async def __aenter__(self):
        await asyncio.sleep(0)
        events.append("open")
        return self

    async def __aexit__(self, *exc):
        events.append("close")

    async def get(self, value):
        return await t.echo(value=value)


events = []
sizes = []
async for page in pages(3):
    sizes.append(len(page))
async with Connection() as connection:
    events.append(await connection.get("hello"))
last = [page[-1]["n"] async for page in pages(3) if page]
[sizes, events, last]
