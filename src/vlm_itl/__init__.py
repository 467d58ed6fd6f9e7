"""Instance segmentation experiment: training with a vision-language model in the loop."""
