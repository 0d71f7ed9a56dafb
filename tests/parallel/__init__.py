"""The engine over several ranks: real processes, Gloo on the CPU."""
