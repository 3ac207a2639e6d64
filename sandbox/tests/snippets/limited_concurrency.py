# a Semaphore bounds how many run, as_completed takes them as they come
# result: [[0, 1, 2, 3, 4], 2]
import asyncio

semaphore = asyncio.Semaphore(2)
running = 0
most = 0


async def fetch(n):
    global running, most
    async with semaphore:
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        value = await t.echo(value=n)
        running -= 1
        return value


tasks = [asyncio.create_task(fetch(n)) for n in range(5)]
finished = []
for done in asyncio.as_completed(tasks):
    finished.append(await done)
[sorted(finished), most]
