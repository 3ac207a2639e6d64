# a TaskGroup, and what it collects
# result: [0, 2, 4, 6, "broken"]
import asyncio


async def double(n):
    await asyncio.sleep(0)
    return await t.add(a=n, b=n)


async def main():
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(double(n)) for n in range(4)]
    results = [task.result() for task in tasks]
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(double(1))
            group.create_task(t.fail(message="broken"))
    except* ToolError as group_error:
        results.append(group_error.exceptions[0].message)
    return results


results = await main()
results
