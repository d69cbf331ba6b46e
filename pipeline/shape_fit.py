# mypy: ignore-errors
"""Kernels: weighted least squares of harmonics to one light curve, by sums alone.

A model of harmonics k₁, k₂, … of a base frequency f is m(t) = c₀ + Σ a_k cos kφ + b_k sin kφ, φ = 2πft. Products of
its terms are terms again, so that the normal matrix of any choice of orders comes from Σw cos kφ and Σw sin kφ up to
twice the highest order (Palmer 2009, ApJ 695, 496). In the Cholesky factor the leading block is the factor of a model
with the first orders only: one factorisation gives the variance that each of the nested models explains.

Amplitudes are held by a ridge, which keeps a fit sane where phases are missing or harmonics outnumber epochs.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = [
    "RIDGE", "evaluate", "explained", "factorise", "model", "normal_equations", "phasors", "solve", "sums", "weigh",
]  # fmt: skip

RIDGE = 1e-3
"""Of harmonic k the ridge is RIDGE · k² of what its own term has on the diagonal when phases are filled evenly."""

# as in `features`: nogil for threads side by side, sums in vector lanes, and a loop either stores or sums, so that the
# last bits of a sum do not depend on where in memory a light curve lies
jit = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
# what a kernel calls becomes part of it, as in `features`
inline = njit(
    nogil=True, cache=True, error_model="numpy", forceinline=True, fastmath={"reassoc", "contract", "nsz"}
)


@inline
def weigh(m, e, weight, y):
    """Weights into `weight`, magnitudes less their weighted mean into `y`; returns (Σw, Σwy², sample std, mean error).

    w = 1 / ((σ/σ̄)² + ¼): half of the mean error in quadrature, so that no few epochs decide alone.
    """
    n = m.size
    errors, low, high = 0.0, m[0], m[0]
    for i in range(n):
        errors += e[i]
        low, high = min(low, m[i]), max(high, m[i])
    err = errors / n
    for i in range(n):
        weight[i] = 1.0 / ((e[i] / err) * (e[i] / err) + 0.25)
    total, weighted, plain = 0.0, 0.0, 0.0
    for i in range(n):
        total += weight[i]
        weighted += weight[i] * m[i]
        plain += m[i]
    # rounding may put a mean outside the range: equal magnitudes must have no variance at all
    mean, flat = min(max(weighted / total, low), high), min(max(plain / n, low), high)
    for i in range(n):
        y[i] = m[i] - mean
    chi2, spread = 0.0, 0.0
    for i in range(n):
        chi2 += weight[i] * y[i] * y[i]
        spread += (m[i] - flat) * (m[i] - flat)
    return total, chi2, math.sqrt(spread / max(n - 1, 1)), err


@inline
def phasors(t, frequency, phase, cosine, sine):
    """Phases from the first epoch, in turns 0…1, and their cosine and sine."""
    for i in range(t.size):
        x = frequency * (t[i] - t[0])
        phase[i] = x - math.floor(x)
    for i in range(t.size):
        cosine[i] = math.cos(2.0 * math.pi * phase[i])
        sine[i] = math.sin(2.0 * math.pi * phase[i])


@inline
def sums(cosine, sine, weight, y, u, v, of_weight, of_data):
    """Σw cos kφ, Σw sin kφ into of_weight[:, k] and Σwy cos kφ, Σwy sin kφ into of_data[:, k], by recurrence.

    of_weight : (2, K + 1), of_data : (2, L + 1) with L ≤ K; u, v : scratch
    """
    n = weight.size
    for i in range(n):
        u[i], v[i] = weight[i], 0.0
    for k in range(of_weight.shape[1]):
        a, b, c, d = 0.0, 0.0, 0.0, 0.0
        if k < of_data.shape[1]:
            for i in range(n):
                a += u[i]
                b += v[i]
                c += u[i] * y[i]
                d += v[i] * y[i]
            of_data[0, k], of_data[1, k] = c, d
        else:
            for i in range(n):
                a += u[i]
                b += v[i]
        of_weight[0, k], of_weight[1, k] = a, b
        for i in range(n):
            u[i], v[i] = u[i] * cosine[i] - v[i] * sine[i], v[i] * cosine[i] + u[i] * sine[i]


@inline
def normal_equations(orders, unit, of_weight, of_data, matrix, right):
    """Lower half of the normal matrix and the right side for c₀, (a, b) of orders[0], (a, b) of orders[1], …

    unit : the order that is the first harmonic, which the ridge counts from
    matrix : at least (2H + 1, 2H + 1), right : at least (2H + 1,), with H = len(orders)
    """
    matrix[0, 0], right[0] = of_weight[0, 0], of_data[0, 0]
    for i in range(orders.size):
        p, a = 1 + 2 * i, orders[i]
        matrix[p, 0], matrix[p + 1, 0] = of_weight[0, a], of_weight[1, a]
        right[p], right[p + 1] = of_data[0, a], of_data[1, a]
        for j in range(i + 1):
            q, b = 1 + 2 * j, orders[j]
            apart, sign = abs(a - b), 1.0 if a >= b else -1.0
            cos_less, cos_more = of_weight[0, apart], of_weight[0, a + b]
            sin_less, sin_more = sign * of_weight[1, apart], of_weight[1, a + b]
            matrix[p, q] = 0.5 * (cos_less + cos_more)
            matrix[p + 1, q + 1] = 0.5 * (cos_less - cos_more)
            matrix[p + 1, q] = 0.5 * (sin_more + sin_less)
            matrix[p, q + 1] = 0.5 * (sin_more - sin_less)
        ridge = RIDGE * 0.5 * of_weight[0, 0] * (a / unit) ** 2
        matrix[p, p] += ridge
        matrix[p + 1, p + 1] += ridge


@inline
def factorise(matrix, right, size):
    """Cholesky factor of the first `size` terms in place of the lower half; `right` becomes z = L⁻¹ right."""
    for i in range(size):
        for j in range(i + 1):
            value = matrix[i, j]
            for k in range(j):
                value -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = math.sqrt(value) if i == j else value / matrix[j, j]
        value = right[i]
        for k in range(i):
            value -= matrix[i, k] * right[k]
        right[i] = value / matrix[i, i]


@inline
def explained(z, harmonics):
    """What the first `harmonics` orders explain of Σwy² (a little less: the ridge's share is not counted)."""
    total = 0.0
    for i in range(1 + 2 * harmonics):
        total += z[i] * z[i]
    return total


@inline
def solve(matrix, z, size, coefficients):
    """Coefficients of the model of the first `size` terms, from `factorise`."""
    for i in range(size - 1, -1, -1):
        value = z[i]
        for k in range(i + 1, size):
            value -= matrix[k, i] * coefficients[k]
        coefficients[i] = value / matrix[i, i]


@inline
def evaluate(coefficients, harmonics, cosine, sine, u, v, values):
    """The model of harmonics 1, 2, …, harmonics at the given phasors, by Horner's rule; u, v : scratch."""
    for i in range(values.size):
        u[i], v[i] = 0.0, 0.0
    for k in range(harmonics, 0, -1):
        a, b = coefficients[2 * k - 1], coefficients[2 * k]
        for i in range(values.size):
            x, y = u[i] + a, v[i] - b
            u[i], v[i] = x * cosine[i] - y * sine[i], x * sine[i] + y * cosine[i]
    for i in range(values.size):
        values[i] = coefficients[0] + u[i]


@inline
def model(cosine, sine, weight, y, harmonics, u, v, values):
    """Fit harmonics 1…harmonics and evaluate them at the epochs; returns what they explain of Σwy², and A₁ [mag]."""
    of_weight, of_data = np.empty((2, 2 * harmonics + 1)), np.empty((2, harmonics + 1))
    sums(cosine, sine, weight, y, u, v, of_weight, of_data)
    size = 1 + 2 * harmonics
    matrix, right, coefficients = np.empty((size, size)), np.empty(size), np.empty(size)
    normal_equations(np.arange(1, harmonics + 1), 1, of_weight, of_data, matrix, right)
    factorise(matrix, right, size)
    solve(matrix, right, size, coefficients)
    evaluate(coefficients, harmonics, cosine, sine, u, v, values)
    return explained(right, harmonics), math.hypot(coefficients[1], coefficients[2])
