"""Representational dissimilarity matrices of many patterns at once, and how alike they are.

    correlation   d_ij = 1 − ẑ_i · ẑ_j        ẑ: a pattern, centred and of unit length
    euclidean     d_ij = ‖x_i − x_j‖² / n      n: number of units

Equal to rsatoolbox, which is the oracle in the tests, and faster: one matrix product instead of a loop.

Shapes: ``N`` images, ``U`` units, ``P = N (N − 1) / 2`` pairs in the order of ``numpy.triu_indices(N, 1)``,
``R`` RDMs, ``B`` resamples.
"""

import functools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Distance = Literal["correlation", "euclidean"]
Method = Literal["spearman", "rho-a", "corr"]
METHODS: tuple[Method, ...] = get_args(Method)
LEFT = 1e-9  # share of an RDM's variance below which what is left of it after regression is rounding
RIDGE = 1e-12
DIGITS = 1e-12  # differences between dissimilarities, relative to the largest, below which they are equal
ROUNDING = 1e-12  # share of a pattern's power below which what is left after centring is rounding


def rdm(patterns: Array, distance: Distance = "correlation") -> Array:
    """Return the RDMs of patterns ``(..., N, U)`` as vectors ``(..., P)``; nan where a pattern is constant."""
    if distance == "correlation":
        return from_gram(gram(patterns, centred=True), distance)
    return from_gram(gram(patterns, centred=False), distance) / patterns.shape[-1]


def gram(patterns: Array, *, centred: bool) -> Array:
    """Return inner products of patterns ``(..., N, U)``, of the centred patterns where asked; ``(..., N, N)``.

    Only the upper triangle and the diagonal are filled: half of the arithmetic.
    """
    from scipy.linalg.blas import dsyrk

    x = np.ascontiguousarray(patterns, dtype=np.float64)
    num, units = x.shape[-2:]
    flat = x.reshape(-1, num, units)
    products: Array = np.empty((len(flat), num, num))
    for k, part in enumerate(flat):
        mean = part @ np.full(units, 1 / units) if centred else np.zeros(num)
        products[k] = dsyrk(1.0, (part - mean[:, None] if centred else part).T, trans=1)
        if centred:  # a constant pattern has no power but rounding
            power, offset = np.diagonal(products[k]), units * np.square(mean)
            np.fill_diagonal(products[k], np.where(power <= ROUNDING**2 * (power + offset), 0.0, power))
    return products.reshape(*x.shape[:-1], num)


def centre(x: Array) -> Array:
    """Return patterns ``(..., N, U)`` less their mean over units; exactly zero where only rounding would be left."""
    centred = x - x.mean(-1, keepdims=True)
    power = np.square(x).sum(-1, keepdims=True)
    constant = np.square(centred).sum(-1, keepdims=True) <= ROUNDING**2 * power
    return np.where(constant, 0.0, centred)


@functools.lru_cache(maxsize=8)
def _upper(num: int) -> NDArray[np.int64]:
    """Return where the pairs are in a flattened square matrix."""
    i, j = np.triu_indices(num, 1)
    return i * num + j


def from_gram(g: Array, distance: Distance) -> Array:
    """Return RDM vectors from inner products ``(..., N, N)``; Euclidean ones are not yet divided by the units."""
    num = g.shape[-1]
    power = np.diagonal(g, axis1=-2, axis2=-1)
    if distance == "euclidean":
        square_ = power[..., :, None] + power[..., None, :] - 2 * g
        return np.maximum(square_.reshape(*g.shape[:-2], num * num)[..., _upper(num)], 0.0)
    if distance != "correlation":
        raise ValueError(f"unknown distance {distance!r}; choose correlation or euclidean")
    with np.errstate(invalid="ignore", divide="ignore"):
        inverse = 1 / np.where(power > 0, np.sqrt(power), np.nan)
    cosine = (g * inverse[..., :, None] * inverse[..., None, :]).reshape(*g.shape[:-2], num * num)
    return 1 - cosine[..., _upper(num)]


def settled(vector: Array) -> Array:
    """Return RDM vectors without their last digits: equal dissimilarities must tie, not be ranked by rounding.

    Where a loss has two categories, the signals of a category's images are parallel at the last stages: their
    distances are all 0 but for rounding.
    """
    scale = np.nanmax(np.abs(vector), axis=-1, keepdims=True, initial=0.0)
    unit = DIGITS * np.where(scale > 0, scale, 1.0)
    return np.asarray(np.round(vector / unit) * unit)


def category_rdm(labels: NDArray) -> Array:
    """Return 0 for pairs of one category and 1 for others, ``(P,)``."""
    i, j = np.triu_indices(len(labels), 1)
    return (labels[i] != labels[j]).astype(np.float64)


def difference_rdm(values: Array) -> Array:
    """Return the absolute difference of one number per image, ``(P,)``."""
    i, j = np.triu_indices(len(values), 1)
    return np.abs(values[i] - values[j])


def square(vector: Array) -> Array:
    """Return RDM vectors ``(..., P)`` as matrices ``(..., N, N)`` with a zero diagonal."""
    num = num_images(vector.shape[-1])
    i, j = np.triu_indices(num, 1)
    matrix = np.zeros((*vector.shape[:-1], num, num))
    matrix[..., i, j] = matrix[..., j, i] = vector
    return matrix


def num_images(num_pairs: int) -> int:
    """Return N from the number of pairs.

    Raises:
        ValueError: If no number of images has so many pairs.
    """
    num = round((1 + math.sqrt(1 + 8 * num_pairs)) / 2)
    if num * (num - 1) // 2 != num_pairs:
        raise ValueError(f"{num_pairs} values are no RDM: N (N − 1) / 2 for no N")
    return num


@dataclass(frozen=True)
class Stack:
    """RDMs to be compared with each other, also under resampling of images.

    A resample draws images with replacement; image i is drawn c_i times, so that pair (i, j) occurs c_i c_j
    times and pairs of an image with itself drop out. Ranks within the resample are running sums of these
    counts in the order of the values: no resampled RDM is ever built.

    Attributes:
        vectors: ``(R, P)``.
        method: ``spearman``, ``rho-a`` (Schütt et al. 2023: Spearman without the correction for ties) or ``corr``.

    Raises:
        ValueError: If a value is not finite, or the method is unknown.
    """

    vectors: Array
    method: Method = "spearman"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}; choose from {', '.join(METHODS)}")
        num_images(self.vectors.shape[1])
        if not np.isfinite(self.vectors).all():  # which would be ranked as the largest dissimilarity
            bad = int((~np.isfinite(self.vectors)).any(1).sum())
            raise ValueError(f"{bad} of {len(self.vectors)} RDMs hold values that are not finite; leave them out")

    @cached_property
    def _order(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Flat indices: pairs in the order of their values, and where each pair's group of ties begins and ends."""
        num_rdms, num_pairs = self.vectors.shape
        order = np.argsort(self.vectors, axis=1, kind="stable")
        ordered = np.take_along_axis(self.vectors, order, 1)
        new = np.ones(ordered.shape, dtype=bool)
        new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        position = np.arange(num_pairs)
        first = np.maximum.accumulate(np.where(new, position, 0), axis=1)
        last = np.ones(ordered.shape, dtype=bool)
        last[:, :-1] = new[:, 1:]
        end = np.minimum.accumulate(np.where(last, position + 1, num_pairs)[:, ::-1], axis=1)[:, ::-1]
        before, after = np.empty_like(order), np.empty_like(order)
        np.put_along_axis(before, order, first, 1)
        np.put_along_axis(after, order, end, 1)
        row = np.arange(num_rdms)[:, None] * (num_pairs + 1)  # running sums begin with a zero
        return order, before + row, after + row

    def twice_ranks(self, weights: NDArray[np.int32] | None = None) -> Array:
        """Return twice the average ranks, in a sample in which pair p occurs ``weights[p]`` times; ``(R, P)``."""
        order, before, after = self._order
        if weights is None:
            weights = np.ones(self.vectors.shape[1], dtype=np.int32)
        running = np.zeros((order.shape[0], order.shape[1] + 1), dtype=np.int32)
        np.cumsum(np.take(weights, order), axis=1, out=running[:, 1:])
        flat = running.ravel()
        return (np.take(flat, before) + np.take(flat, after) + 1).astype(np.float64)

    def products(self, counts: Counts | None = None, num_first: int | None = None) -> tuple[Array, Array, float]:
        """Return sums of products of centred values (of ranks, unless ``corr``), and the number of pairs.

        Args:
            counts: ``(N,)`` how often each image is drawn; once by default.
            num_first: Products are wanted of the first so many RDMs with all; of all with all by default.

        Returns:
            ``(num_first, R)`` products, ``(R,)`` squared sums, and the number of pairs in the sample.
        """
        weights = None
        if counts is not None:
            i, j = np.triu_indices(len(counts), 1)
            weights = (counts[i] * counts[j]).astype(np.int32)
        total = float(self.vectors.shape[1] if weights is None else weights.sum())
        if self.method == "corr":
            mean = self.vectors.mean(1) if weights is None else self.vectors @ weights / total
            x = self.vectors - mean[:, None]
        else:
            x = self.twice_ranks(weights)
            x -= total + 1
            x *= 0.5
        weighted = x if weights is None else x * weights
        power: Array = np.einsum("rp,rp->r", x, weighted)
        return np.asarray(x[:num_first] @ weighted.T, dtype=np.float64), power, total

    def similarity(self, products: Array, power: Array, total: float) -> Array:
        """Return the similarities ``(num_first, R)`` from what ``products`` returned; nan where one is constant."""
        if self.method == "rho-a":
            return 12 * products / (total**3 - total)
        length = np.sqrt(np.where(power > 0, power, np.nan))
        return products / (length[: len(products), None] * length)


def compare(first: Array, second: Array, method: Method = "spearman") -> Array:
    """Return the similarity of every RDM of ``first`` ``(R, P)`` with every one of ``second``."""
    stack = Stack(np.concatenate([first, second]), method)
    return stack.similarity(*stack.products(num_first=len(first)))[:, len(first) :]


def partial(
    products: Array, power: Array, rows: NDArray[np.int64], given: NDArray[np.int64], columns: NDArray[np.int64]
) -> Array:
    """Return correlations of rows with columns, given others, from what ``Stack.products`` returned.

    The products of rows and columns with the others are taken out (Schur complement): the correlation of
    what remains after linear regression on the others. nan where nothing remains of a row or of a column: the
    others determine it, and there is nothing to correlate.

    Args:
        products: ``(M, R)`` products of centred values.
        power: ``(R,)`` squared sums.
        rows: Indices of the models, below M.
        given: Indices of what is held constant, below M.
        columns: Indices of the data.
    """
    to_rows, to_columns = products[given[:, None], rows], products[given[:, None], columns]
    among = products[given[:, None], given]
    # A trace on the diagonal, below what matters, in case that some of the others determine each other.
    among = among + np.diag(RIDGE * np.maximum(np.diagonal(among), 1e-300))
    left = np.linalg.solve(among, np.concatenate([to_rows, to_columns], 1))
    row_power = power[rows] - (to_rows * left[:, : len(rows)]).sum(0)
    column_power = power[columns] - (to_columns * left[:, len(rows) :]).sum(0)
    row_power = np.where(row_power > LEFT * power[rows], row_power, np.nan)
    column_power = np.where(column_power > LEFT * power[columns], column_power, np.nan)
    remains = products[rows[:, None], columns] - to_rows.T @ left[:, len(rows) :]
    return np.asarray(remains / np.sqrt(row_power[:, None] * column_power))
