"""The weights of cubic convolution (Keys), by which PyTorch resizes with and without antialiasing.

Its coefficient is -0.75 without antialiasing and -0.5 with it.
"""

from __future__ import annotations

from torch import Tensor


def near(distance: Tensor, coefficient: float) -> Tensor:
    """Returns the weights of elements at a distance of at most one step."""
    return ((coefficient + 2) * distance - (coefficient + 3)) * distance * distance + 1


def far(distance: Tensor, coefficient: float) -> Tensor:
    """Returns the weights of elements at a distance of one to two steps."""
    return ((coefficient * distance - 5 * coefficient) * distance + 8 * coefficient) * distance - 4 * coefficient
