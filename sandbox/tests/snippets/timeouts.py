# wait_for, asyncio.timeout, and cancellation
# result: ["cancelled", "timed out", "timed out again", "in time"]
import asyncio

events = []


async def slow():
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        events.append("cancelled")
        raise


try:
    await asyncio.wait_for(slow(), timeout=0.02)
except asyncio.TimeoutError:
    events.append("timed out")
try:
    async with asyncio.timeout(0.02):
        await asyncio.sleep(30)
except TimeoutError:
    events.append("timed out again")
events.append(await asyncio.wait_for(t.echo(value="in time"), timeout=5))
events
