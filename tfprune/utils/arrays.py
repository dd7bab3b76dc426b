"""The type of numpy arrays of any numbers; ``tfprune.core.arrays`` has that of floats."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
