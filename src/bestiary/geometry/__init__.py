"""Pure coordinates: boxes, masks, anchors, points and cameras."""
