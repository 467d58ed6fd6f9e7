"""Where the weights that ship with a config lie."""

from pathlib import PurePosixPath


def drawn_weights(config: str) -> str:
    """The weights of `init: drawn`: the file of the config's name, which `vlm_itl.tools.drawn_start` makes."""
    return str(PurePosixPath(config).with_suffix(".safetensors"))
