"""Cameras, rays, lifting, point rendering, frusta and camera paths."""
