"""YAML configurations of models and clusters, their settings and their loader."""

from configs.loader import load_cluster, load_model, shipped
from configs.settings import AppArgs, ClusterSettings, ModelSettings

__all__ = ["AppArgs", "ClusterSettings", "ModelSettings", "load_cluster", "load_model", "shipped"]
