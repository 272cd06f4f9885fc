"""Ridge regression from sums over the data: any number of rows, none of them kept."""

import torch
from torch import Tensor


class NormalEquations:
    """The sums XᵀX, Xᵀy and yᵀy of rows that come piece by piece, in float64.

    They are enough to solve for the coefficients, and to say what squared error any coefficients leave on these rows:
    the equations of held-out rows need not keep them either.

    Args:
        size (`int`): F, the number of coefficients.
    """

    def __init__(self, size: int) -> None:
        self.gram = torch.zeros(size, size, dtype=torch.float64)
        self.moment = torch.zeros(size, dtype=torch.float64)
        self.energy, self.rows = 0.0, 0

    def add(self, rows: Tensor, values: Tensor) -> None:
        """More rows (N, F) with their values (N,)."""
        rows, values = rows.double().cpu(), values.double().cpu()
        self.gram += rows.T @ rows
        self.moment += rows.T @ values
        self.energy += float(values.square().sum())
        self.rows += len(rows)

    def without(self, last: int) -> "NormalEquations":
        """These rows after the best that their last columns alone can explain; of the other columns."""
        kept, known = self.gram[:-last, :-last], self.gram[-last:, -last:]
        beside = self.gram[:-last, -last:] @ torch.linalg.pinv(known, hermitian=True)
        rest = NormalEquations(len(kept))
        rest.gram = kept - beside @ self.gram[-last:, :-last]
        rest.moment = self.moment[:-last] - beside @ self.moment[-last:]
        explained = self.moment[-last:] @ torch.linalg.pinv(known, hermitian=True) @ self.moment[-last:]
        rest.energy, rest.rows = self.energy - float(explained), self.rows
        return rest

    def solve(self, penalty: float) -> Tensor:
        """The coefficients of least squared error plus `penalty` times the sum of their squares, each column taken in
        units of its own root mean square.

        Returns:
            `Tensor`: (F,) float64; 0 for columns that are 0 throughout.
        """
        scale = self.gram.diagonal().sqrt()
        used = scale > 1e-12 * scale.max().clamp_min(1e-300)
        result = torch.zeros_like(self.moment)
        if not bool(used.any()):
            return result
        scale = scale[used]
        gram = self.gram[used][:, used] / scale[:, None] / scale
        gram = gram + penalty * torch.eye(len(scale), dtype=gram.dtype)
        result[used] = torch.linalg.lstsq(gram, (self.moment[used] / scale)[:, None]).solution[:, 0] / scale
        return result

    def along(self, direction: Tensor) -> Tensor:
        """The multiple of these coefficients (F,) of least squared error."""
        length = float(direction @ self.gram @ direction)
        return direction * (float(direction @ self.moment) / length if length > 0 else 0.0)

    def error(self, coefficients: Tensor) -> float:
        """The sum of squared errors that these coefficients (F,) leave."""
        return self.energy + float(coefficients @ (self.gram @ coefficients - 2 * self.moment))

    def explained(self, coefficients: Tensor) -> float:
        """1 − squared error over that of predicting 0 throughout; 0 where the values are all 0."""
        return 1 - self.error(coefficients) / self.energy if self.energy > 0 else 0.0
