"""Judges: from the proposals of a pool to one verdict an image. One module a kind; `vlm_itl.registry` lists them."""
