"""Depth maps behind one protocol."""
