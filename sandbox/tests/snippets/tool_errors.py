# errors of a tool: caught, read, and worked around
# result: ["failed: not found", "fine", "failed: denied"]
results = []
for message in ["not found", None, "denied"]:
    try:
        if message is None:
            results.append(t.echo(value="fine"))
        else:
            t.fail(message=message)
    except ToolError as error:
        results.append(f"failed: {error.message}")
results
