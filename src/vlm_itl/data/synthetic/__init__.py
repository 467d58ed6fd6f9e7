"""`data.source: synthetic`: a drawn stand-in for COCO images of stop signs, birds, zebras and books, with exact instance masks."""
