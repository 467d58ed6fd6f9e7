"""Real people draw, in CVAT or Label Studio: what waits to be drawn goes out, and what they drew comes back."""
