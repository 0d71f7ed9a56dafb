"""Examples to read and run: ``python -m examples.<name>``."""
