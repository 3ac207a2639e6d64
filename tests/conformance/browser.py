"""A person with a browser who agrees to everything: opens a page and follows where it leads.

BROWSER="python -m tests.conformance.browser %s &" mcpgate auth login SERVER
"""

import sys

import httpx2

if __name__ == "__main__":
    httpx2.get(sys.argv[1], follow_redirects=True, timeout=30)
