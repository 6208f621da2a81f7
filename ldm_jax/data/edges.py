"""Edges of pictures, as ControlNets are shown them."""

import numpy as np
from jaxtyping import UInt8


class EdgesError(ValueError):
    """What finds edges is not installed."""


def canny_edges(
    picture: UInt8[np.ndarray, "h w 3"], low: float = 100.0, high: float = 200.0
) -> UInt8[np.ndarray, "h w 3"]:
    """White edges on black (Canny 1986), as OpenCV finds them with these thresholds: three equal
    channels.

    Raises:
        EdgesError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise EdgesError(
            "canny needs OpenCV: pip install 'ldm_jax[edges]', or give a picture of the edges"
        ) from error
    edges = cv2.Canny(np.ascontiguousarray(picture), low, high)
    return np.repeat(edges[..., None], 3, axis=2)
