"""Python client of a WorldStereo Cluster server."""
