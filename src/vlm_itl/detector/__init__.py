"""Mask R-CNN by Detectron2: the only package that imports it."""
