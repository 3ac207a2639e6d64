"""What Code Mode saves, as an estimate that rather says too little.

Every call of a meta-tool is one request of a model. Classic MCP would have sent the definitions of all tools behind
the gateway with it; the gateway sent its own. An execution's tool answers would have gone through the model's context;
only what the code printed and returned did. Counted in characters, four to a token. Not counted, though classic MCP
would have paid for them: the further requests that calling those tools one by one would have taken, and that every
answer is read again with each later request of the conversation.
"""

from mcpgate.governance.records import Usage
from mcpgate_sandbox.engine import Outcome

CHARS_PER_TOKEN = 4


def saved(theirs: int, ours: int, answer: str, outcome: Outcome | None) -> Usage:
    """What one call of a meta-tool saved. `theirs`, `ours`: characters of all upstream definitions that the caller
    may see, and of the gateway's own; `outcome` if the call ran code."""
    results = 0 if outcome is None else (outcome.answer_chars - len(answer)) // CHARS_PER_TOKEN
    return Usage(definition_tokens_saved=(theirs - ours) // CHARS_PER_TOKEN, result_tokens_saved=results)
