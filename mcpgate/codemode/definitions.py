"""The four meta-tools as `tools/list` shows them."""

META_TOOL_NAMES = ("list_tools", "describe_tools", "read_docs", "execute_code")
