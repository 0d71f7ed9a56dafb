"""From one image, or a panorama, to a scene in a published layout."""
