"""What a layer's inputs say about its weights.

The layer computes y = W x. If W becomes W + D, the mean squared error of its outputs over the calibration inputs is

    mean |D x|^2 = tr(D H D^T),    H = mean of x x^T

H is the Hessian of that error (up to a factor of 2). Its diagonal says how strong each input is; what is beside the
diagonal says which errors can cancel out. Each row of W has the same H and is a problem of its own.

Hassibi and Stork 1993, "Optimal Brain Surgeon"; Frantar et al. 2023, "GPTQ", section 3.
"""

import torch
from torch import Tensor

from labkit.errors import LabError

DAMP = 0.01  # of the mean of the diagonal, added to it: GPTQ's
DAMP_TRIES = 4


class InputStatistics:
    """Hessian and mean absolute value of the inputs of a layer, added up batch by batch."""

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        self.tokens = 0
        self._products = torch.zeros(width, width, device=device)
        self._absolute = torch.zeros(width, device=device)

    # exercise: quantization.add_inputs
    def add(self, inputs: Tensor) -> None:
        """Take note of some inputs, in float32.

        Args:
            inputs: (tokens, width), any dtype.
        """
        inputs = inputs.float()
        self.tokens += len(inputs)
        self._products.addmm_(inputs.T, inputs)
        self._absolute += inputs.abs().sum(0)

    # end exercise

    @property
    def hessian(self) -> Tensor:
        """Mean of x x^T. (width, width), float32."""
        return self._products / max(1, self.tokens)

    @property
    def mean_absolute(self) -> Tensor:
        """Mean of |x|. (width,), float32."""
        return self._absolute / max(1, self.tokens)


def output_error(weight: Tensor, approximation: Tensor, hessian: Tensor) -> float:
    """Relative squared error of a layer's outputs: tr(D H D^T) / tr(W H W^T), D the difference of the weights.

    Args:
        weight, approximation: (out, in).
        hessian: of the inputs that are asked about. (in, in).
    """
    return float(squared_outputs(approximation - weight, hessian) / squared_outputs(weight, hessian))


def squared_outputs(weight: Tensor, hessian: Tensor) -> Tensor:
    """Mean of |W x|^2 over the inputs: tr(W H W^T). ()."""
    return (weight @ hessian * weight).sum()


# exercise: quantization.inverse_factor
def inverse_factor(hessian: Tensor, damp: float = DAMP) -> Tensor:
    """The upper Cholesky factor U of the inverse Hessian, H^-1 = U^T U; what GPTQ reads row by row.

    Row i of U, divided by its diagonal element, says how the inputs after i make good what input i lost, when the
    inputs before i are fixed already: the inverse Hessian of the rest of the inputs is in it, for every i at once.
    Before it is inverted, `damp` times the mean of the diagonal is added to the diagonal; ten times as much, and so on,
    where that is not enough.

    Args:
        hessian: symmetric, no zero on the diagonal. (in, in).

    Raises:
        LabError: no inverse was found; NaN in the inputs, for example.
    """
    for attempt in range(DAMP_TRIES):
        damped = hessian.clone()
        damped.diagonal().add_(damp * 10**attempt * hessian.diagonal().mean())
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed and upper.isfinite().all():
                return upper
    raise LabError("a layer's Hessian has no inverse", "more calibration text, or a larger --damp")


# end exercise
