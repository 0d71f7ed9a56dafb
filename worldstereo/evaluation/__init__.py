"""Numbers that judge what was generated: cameras, pictures, consistency, geometry."""
