"""Label maps in MATLAB's .mat files, read through SciPy."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asymseg.errors import DataError


@dataclass(frozen=True)
class MatLabels:
    """Reads the label map `variable` of a .mat file; with `field`, that of the struct `variable`."""

    variable: str
    field: str | None = None

    def __call__(self, path: Path) -> np.ndarray:
        """Raw ids H W."""
        try:
            from scipy.io import loadmat
        except ImportError:
            raise DataError(f'{path}: a .mat file is read through SciPy; pip install "asymseg[formats]"') from None
        names = [self.variable]
        content = loadmat(path, variable_names=names).get(self.variable)
        if content is not None and self.field is not None:
            inner = content.dtype.names and self.field in content.dtype.names
            content = content[self.field][0, 0] if inner else None
        if content is None:
            wanted = self.variable if self.field is None else f"{self.variable}.{self.field}"
            raise DataError(f"{path}: holds no label map {wanted}; is this the .mat of another data set?")
        labels = np.asarray(content)
        whole = labels.dtype.kind == "f" and np.array_equal(labels, np.rint(labels))
        if whole and np.abs(labels).max(initial=0) < 2**31:
            return labels.astype(np.int32)  # MATLAB's numbers are doubles unless somebody minds
        return labels
