"""Turn between two images by the optical flow of OpenCV, as earlier studies read it: for comparison, not for the score.

Lucas–Kanade at corners with the window of 50 pixels and Farnebäck's dense flow, with the parameters of the published
analyses (Watanabe et al. 2018 and its public code). Both see 8-bit grey images and average neighbouring rings together.
Needs the optional extra ``flow``.
"""

import importlib.util
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training.data.base import LUMINANCE, to_srgb


def available() -> bool:
    """Return whether OpenCV is there."""
    return importlib.util.find_spec("cv2") is not None


def lucas_kanade(before: Tensor, after: Tensor, inner: float, outer: float) -> float:
    """Return the mean turn of corners between two images ``(C, H, W)`` in degrees, counter-clockwise; nan without any.

    Args:
        before: First image, in linear luminance.
        after: Second image.
        inner: Least distance of a corner from the centre, in halves of the image's side.
        outer: Largest distance.
    """
    import cv2

    cv: Any = cv2
    first, second = _grey(before), _grey(after)
    corners = cv.goodFeaturesToTrack(first, maxCorners=100, qualityLevel=0.3, minDistance=7, blockSize=7)
    if corners is None:
        return math.nan
    moved, found, _ = cv.calcOpticalFlowPyrLK(
        first, second, corners, None, winSize=(50, 50), maxLevel=2,
        criteria=(cv.TERM_CRITERIA_EPS | cv.TERM_CRITERIA_COUNT, 10, 0.03),
    )  # fmt: skip
    kept = found.reshape(-1).astype(bool)
    return _turn(corners.reshape(-1, 2)[kept], moved.reshape(-1, 2)[kept], first.shape, inner, outer)


def farneback(before: Tensor, after: Tensor, inner: float, outer: float) -> float:
    """Return the mean turn of all pixels between two images in degrees; arguments as of ``lucas_kanade``."""
    import cv2

    cv: Any = cv2
    first, second = _grey(before), _grey(after)
    flow = cv.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 10, 3, 5, 1.1, 0)
    row, column = np.indices(first.shape, dtype=np.float64)
    places = np.stack([column.ravel(), row.ravel()], 1)
    return _turn(places, places + flow.reshape(-1, 2), first.shape, inner, outer)


def _grey(image: Tensor) -> NDArray[np.uint8]:
    linear = sum(w * c for w, c in zip(LUMINANCE, image, strict=True)) if len(image) == 3 else image[0]
    assert isinstance(linear, Tensor)
    return np.ascontiguousarray((to_srgb(linear) * 255).round().byte().numpy())


def _turn(places: Any, moved: Any, shape: tuple[int, ...], inner: float, outer: float) -> float:
    """Return the mean change of angle around the centre, weighted by the radius."""
    half = np.array([shape[1], shape[0]]) / 2
    start, end = ((p - (half - 0.5)) / half * (1, -1) for p in (places, moved))
    radius = np.hypot(*start.T)
    ring = (radius >= inner) & (radius <= outer)
    if not ring.any():
        return math.nan
    change = np.arctan2(end[:, 1], end[:, 0]) - np.arctan2(start[:, 1], start[:, 0])
    change = (change + np.pi) % (2 * np.pi) - np.pi
    return float(np.degrees(np.average(change[ring], weights=radius[ring])))
