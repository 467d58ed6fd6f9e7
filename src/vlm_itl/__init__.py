"""Instance segmentation experiment: training with a vision-language model in the loop."""

from vlm_itl import core  # noqa: F401 - before any module here loads numpy, see `core.processor`
