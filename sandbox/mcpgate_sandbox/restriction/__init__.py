"""What the restricted engine's guest is made of, beside `mcpgate_guest`, which it shares with the Wasm guest:
what code may name (policy), how it is compiled (transformer), what looks after it while it runs (guards), and
the stand-ins for modules that it imports (modules, tasks). A courtesy and a first wall; the kernel is the second."""
