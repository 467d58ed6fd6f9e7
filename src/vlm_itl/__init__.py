"""Instance segmentation experiment: training with a vision-language model in the loop."""

from . import base  # noqa: F401 - before any module here loads numpy, see `base.processor`
