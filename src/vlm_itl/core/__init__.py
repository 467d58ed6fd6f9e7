"""What every stage is built on: its command line, the settings, files, errors and COCO tables. A change here runs everything again."""

from vlm_itl.core.processor import pin_numpy

pin_numpy()
