"""temporary"""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class ObservationSpec:
    shape: tuple
    dtype: str = "uint8"

    @property
    def bytes(self):
        return math.prod(self.shape) * (4 if self.dtype == "float32" else 1)
