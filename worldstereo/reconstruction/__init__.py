"""From committed clips to one cloud, and to what other programs open."""
