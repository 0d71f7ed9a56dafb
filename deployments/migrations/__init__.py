"""The store's schema, step by step: one file a version, run at start by ``Store``."""
