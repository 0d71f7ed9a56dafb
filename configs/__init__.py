"""YAML configurations of models and clusters, and their loader."""
