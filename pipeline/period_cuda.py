"""Period search on a GPU (numba.cuda): the candidates of `period.search`, from the same steps in another order.

Light curves are weighed on the host. Those whose folds have one shape are then searched together:

    spread      `period_cuda_fold`: epochs into grids
    transform   cuFFT through CuPy or PyTorch, whichever is installed
    peaks       `period_cuda_fold`: the highest of all aliases
    judge       `period_cuda_fit`: one warp a candidate

Nothing is padded, and no sum depends on which thread comes first: the same batch gives the same numbers twice. They
are the CPU's but for the order of float32 sums: frequencies within 1e-3/T, ranks within a hundredth.

This module needs numba.cuda: Numba's own, or the package numba-cuda, which replaces it. `period.search` imports it
when it is asked for that device.
"""

# mypy: ignore-errors
# (kernels are written in Numba's language, which mypy does not know)

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numba import cuda
from numba.core import config
from scipy import fft

from lightmill.pipeline import period_cuda_fold as fold
from lightmill.pipeline import period_fit, period_fold
from lightmill.pipeline.dmdt_cuda import available
from lightmill.pipeline.period import HARMONICS, Periods
from lightmill.pipeline.period_cuda_fit import WIDE, judge
from lightmill.pipeline.period_fit import EXPLAINED, FREQUENCY, POWER, RANK
from lightmill.pipeline.period_plan import Plan

__all__ = ["search_on_device"]

AT_ONCE = 2**27  #: cells of the grids that are transformed together: half a gigabyte, their spectra another
JUDGED = 2**19  #: peaks and relatives that are judged together, at 900 bytes each

NO_DEVICE = (
    "no CUDA device: numba.cuda finds no driver or no GPU. Install NVIDIA's driver and `pip install numba-cuda[cu13]` "
    "([cu12] for CUDA 12), or search on the CPU with period.search; NUMBA_ENABLE_CUDASIM=1, set before Python starts, "
    "simulates a device, slowly"
)
NO_TRANSFORM = (
    "no Fourier transform for the CUDA device: install cupy-cuda13x (cupy-cuda12x for CUDA 12) or torch"
)


def search_on_device(asked: Plan, fmax: float, candidates: int, found: Periods) -> None:
    """Fill `found` on the current CUDA device: what `period.search` calls for device="cuda".

    The device holds the batch's epochs once, 24 bytes each, and up to three gigabytes of grids, spectra and candidates.

    Raises
    ------
    ValueError
        if candidates exceed `period_cuda_fold.MOST`.
    RuntimeError
        if there is no CUDA device, or neither CuPy nor PyTorch to transform on it.
    """
    if candidates > fold.MOST:
        raise ValueError(f"candidates must be at most {fold.MOST} on a CUDA device, got {candidates}")
    if not available():
        raise RuntimeError(NO_DEVICE)
    loads = list(_loads(asked))
    if not loads:
        return
    night = asked.night
    curves = Curves.upload(**vars(asked.epochs), **vars(asked.looked), day=night.day, dusk=night.dusk)
    keys = _peaks(curves, loads, night.rows, asked.days, fmax, candidates)
    chosen = np.concatenate(loads)
    at_once = max(1, JUDGED // period_fit.with_relatives(candidates))
    for a in range(0, len(chosen), at_once):
        some = chosen[a : a + at_once]
        _write(judge(curves, cuda.to_device(some), keys[a : a + len(some)]), some, found)


@dataclass(frozen=True)
class Curves:
    """n light curves on the device, as `period_plan.Epochs`, `period_plan.Looked` and `period_fold.Night` have them."""

    t: Any  #: (N,) float64 [d]
    time: Any  #: (N,) float64 [d], from the middle
    weight: Any  #: (N,) float32, sums to 1
    product: Any  #: (N,) float32 [mag]
    offsets: Any  #: (n + 1,) int64
    variance: Any  #: (n,) float64 [mag²]
    day: Any  #: (n,) float64 [d]
    dusk: Any  #: (n,) float64 [days]
    step: Any  #: (n,) float64 [1/d]
    lowest: Any  #: (n,) float64 [1/d]
    highest: Any  #: (n,) float64 [1/d]
    first: Any  #: (n,) int64, in steps
    last: Any  #: (n,) int64, in steps
    number: Any  #: (n,) float64, of independent frequencies

    @classmethod
    def upload(cls, **arrays: np.ndarray) -> Curves:
        return cls(**{field.name: cuda.to_device(arrays[field.name]) for field in fields(cls)})


def _loads(asked: Plan) -> Iterator[np.ndarray]:
    """The light curves, those together whose grids are alike and fit into AT_ONCE cells."""
    for alike in asked.alike():
        at_once = max(1, AT_ONCE // int(asked.night.rows[alike[0]] * asked.days[alike[0]]))
        for a in range(0, len(alike), at_once):
            yield alike[a : a + at_once]


def _write(told: np.ndarray, some: np.ndarray, found: Periods) -> None:
    """What `judge` returned into the record."""
    found.candidates[some], found.rank[some] = told[..., FREQUENCY], told[..., RANK]
    found.power[some], found.score[some] = told[..., POWER], told[..., WIDE]
    found.explained[some] = told[..., EXPLAINED : EXPLAINED + HARMONICS]
    found.wave[some] = told[..., EXPLAINED + HARMONICS : WIDE]


def _peaks(
    curves: Curves, loads: list[np.ndarray], rows: np.ndarray, days: np.ndarray, fmax: float, most: int
) -> Any:
    """Keys of the highest peaks of the light curves of `loads`, one load after the other: (k, most) on the device."""
    keys = cuda.device_array((sum(map(len, loads)), most), np.uint64)
    shapes = [(len(some), int(rows[some[0]]), int(days[some[0]])) for some in loads]
    cells = cuda.device_array(max(map(math.prod, shapes)), np.float32)
    kernel, at = cuda.to_device(period_fold.SPREAD), 0
    for some, shape in zip(loads, shapes, strict=True):
        place, grids = cuda.to_device(some), cells[: math.prod(shape)].reshape(shape)
        fold.spread(curves, place, period_fold.density(fmax), kernel, grids)
        tables = period_fold.tables(*shape[1:], fmax)
        fold.peaks(curves, place, shape[2], tables, _transform(grids), keys[at : at + len(some)])
        at += len(some)
    return keys


def _transform(grids: Any) -> Any:
    """Real transforms of the rows: (k, rows, days + 2) float32, real and imaginary parts side by side."""
    return _rfft()(grids)


@cache
def _rfft() -> Callable[[Any], Any]:
    if config.ENABLE_CUDASIM:
        return lambda grids: cuda.to_device(fft.rfft(grids.copy_to_host()).view(np.float32))
    if find_spec("cupy"):
        cupy = importlib.import_module("cupy")
        return lambda grids: cuda.as_cuda_array(cupy.fft.rfft(cupy.asarray(grids)).view(cupy.float32))
    if find_spec("torch"):
        torch = importlib.import_module("torch")
        device = f"cuda:{cuda.get_current_device().id}"

        def rfft(grids: Any) -> Any:
            spectra = torch.view_as_real(torch.fft.rfft(torch.as_tensor(grids, device=device)))
            return cuda.as_cuda_array(spectra.reshape(*grids.shape[:2], -1))

        return rfft
    raise RuntimeError(NO_TRANSFORM)
