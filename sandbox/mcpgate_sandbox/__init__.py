"""Runs model-written Python where it can do no harm. Stands alone: imports nothing of mcpgate."""
