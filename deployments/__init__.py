"""How it is served: the Ray Serve graph, HTTP, the orchestrator, the store."""
