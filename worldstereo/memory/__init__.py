"""The memory bank: retrieval, the exact plan, and the reduction to a few references."""
