"""Mask R-CNN by Detectron2: the only package that imports it."""

import logging
import warnings

# Detectron2's use of older interfaces, which nobody here can act on
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
warnings.filterwarnings("ignore", message="torch.meshgrid")
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # `launch` says it
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
