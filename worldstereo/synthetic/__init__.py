"""Procedural worlds with exact images, depth, cameras and clouds, from a seed."""

from worldstereo.synthetic.world import SyntheticViews, SyntheticWorld, make_world

__all__ = ["SyntheticViews", "SyntheticWorld", "make_world"]
