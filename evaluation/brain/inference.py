"""How sure a similarity to the brain is: noise ceilings, and the bootstrap over subjects and images.

    var = S/(S−1) var_s + N/(N−1) var_i − SN/((S−1)(N−1)) (var_si − var_s − var_i)

var_s, var_i and var_si are the variances under resampling of S subjects, of N images, and of both; a resample of
both counts the noise of each pair twice (Schütt et al. 2023, eLife 12:e82566). Equal to rsatoolbox's for the
same resamples.

Shapes: ``M`` models, ``T`` targets (ROIs), ``S`` subjects, ``B`` resamples, ``P`` pairs of images.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.brain.rdm import Array, Method, Stack, compare, num_images, partial, square

RESAMPLES = 1000
FEWEST_IMAGES = 3  # distinct images that a resample must have


@dataclass(frozen=True)
class Row:
    """One model RDM, or what is left of it given others.

    Attributes:
        model: Name of the RDM.
        given: Names of RDMs that are held constant.
    """

    model: str
    given: tuple[str, ...] = ()


@dataclass(frozen=True)
class Alignment:
    """Similarity of rows with targets.

    Attributes:
        rows: The rows.
        targets: Names of the targets.
        score: ``(rows, T)`` mean over subjects of the similarity with each subject's RDM.
        of_mean: ``(rows, T)`` similarity with the RDM averaged over subjects.
        low: Lower end of the 95 % interval of ``score``; nan where it was not resampled.
        high: Upper end.
        ceilings: Target → lower and upper noise ceiling of ``score``, ``None`` for one subject.
        resampled: ``score`` under resampling of both, of subjects alone and of images alone, ``(3, B, rows, T)``.
        subjects: Target → number of subjects.
    """

    rows: tuple[Row, ...]
    targets: tuple[str, ...]
    score: Array
    of_mean: Array
    low: Array
    high: Array
    ceilings: Mapping[str, tuple[float, float] | None]
    resampled: Array
    subjects: Mapping[str, int]


def noise_ceiling(rdms: Array, method: Method = "spearman") -> tuple[float, float] | None:
    """Return the bounds of what the true model would score on subjects' RDMs ``(S, P)``; ``None`` for one subject.

    Lower: mean similarity of each subject with the mean of the others. Upper: with the mean of all. The mean
    is over ranks, or over standardised values for ``corr`` (Nili et al. 2014, PLoS Comput. Biol. 10:e1003553).
    """
    if len(rdms) < 2:
        return None
    values = Stack(rdms, method)
    x = rdms - rdms.mean(1, keepdims=True)
    x = x / x.std(1, keepdims=True) if method == "corr" else values.twice_ranks()
    total = x.sum(0)
    others = (total - x) / (len(x) - 1)
    low = [compare(o[None], r[None], method)[0, 0] for o, r in zip(others, rdms, strict=True)]
    return float(np.mean(low)), float(compare(total[None] / len(x), rdms, method).mean())


def align(
    models: Mapping[str, Array],
    targets: Mapping[str, Array],
    rows: Sequence[Row],
    *,
    method: Method = "spearman",
    resamples: int = RESAMPLES,
    seed: int = 0,
    ceilings: bool = True,
    people: Mapping[str, Sequence[str]] | None = None,
) -> Alignment:
    """Compare model RDMs with every subject's RDM of every target.

    Args:
        models: Name → RDM ``(P,)``, also of what rows hold constant.
        targets: Name → RDMs of subjects ``(S, P)``; S may differ between targets.
        rows: What is to be compared.
        method: Similarity; partial ones are correlations (of ranks, unless ``corr``).
        resamples: B; 0 for no intervals.
        seed: Of the resampling.
        ceilings: Whether noise ceilings are wanted.
        people: Target → names of its subjects. Targets of the same people are resampled together, so that what these
            people have in common cancels in differences between targets; others independently.
    """
    names = list(models)
    subjects = {t: len(v) for t, v in targets.items()}
    everyone = np.concatenate(list(targets.values()))
    stack = Stack(np.concatenate([np.stack(list(models.values())), everyone]), method)
    plan = _Plan(names, rows, len(everyone))
    own = plan.scores(stack, None)
    means = np.stack([v.mean(0) for v in targets.values()])
    whole = Stack(np.concatenate([np.stack(list(models.values())), means]), method)
    of_mean = _Plan(names, rows, len(means)).scores(whole, None)
    edges = np.cumsum([0, *subjects.values()])
    groups = list(itertools.pairwise(edges))
    score = np.stack([own[:, a:b].mean(1) for a, b in groups], 1)
    resampled = _resample(stack, plan, own, groups, _people(targets, people), resamples, seed)
    spread = np.stack([_spread(resampled[..., t], b - a, stack) for t, (a, b) in enumerate(groups)], 1)
    return Alignment(
        tuple(rows),
        tuple(targets),
        score,
        of_mean,
        score - spread,
        score + spread,
        {t: noise_ceiling(v, method) if ceilings else None for t, v in targets.items()},
        resampled,
        subjects,
    )


def on_images(
    models: Mapping[str, Array], targets: Mapping[str, Array], rows: Sequence[Row], method: Method
) -> Callable[[NDArray[np.int64]], Array]:
    """Return a function from some images' indices to ``align(...).score`` on these images alone, ``(rows, T)``."""
    matrices = square(np.concatenate([np.stack(list(models.values())), *targets.values()]))
    plan = _Plan(list(models), rows, len(matrices) - len(models))
    groups = list(itertools.pairwise(np.cumsum([0, *map(len, targets.values())])))

    def scores(index: NDArray[np.int64]) -> Array:
        i, j = np.triu_indices(len(index), 1)
        own = plan.scores(Stack(matrices[:, index[i], index[j]], method), None)
        return np.stack([own[:, a:b].mean(1) for a, b in groups], 1)

    return scores


class _Plan:
    """Which products make which row, grouped by what is held constant."""

    def __init__(self, names: Sequence[str], rows: Sequence[Row], num_data: int) -> None:
        place = {n: i for i, n in enumerate(names)}
        self.num_models, self.num_rows = len(names), len(rows)
        self.columns = np.arange(len(names), len(names) + num_data)
        self.groups: dict[tuple[str, ...], tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = {}
        for given in dict.fromkeys(r.given for r in rows):
            where = [i for i, r in enumerate(rows) if r.given == given]
            models = np.array([place[rows[i].model] for i in where])
            self.groups[given] = np.array(where), models, np.array([place[g] for g in given], dtype=np.int64)

    def scores(self, stack: Stack, counts: NDArray[np.int64] | None) -> Array:
        """Return the similarity of every row with every RDM of the data, ``(rows, data)``."""
        products, power, total = stack.products(counts, self.num_models)
        similarity = stack.similarity(products, power, total)
        result = np.empty((self.num_rows, len(self.columns)))
        for where, models, given in self.groups.values():
            if len(given):
                result[where] = partial(products, power, models, given, self.columns)
            else:
                result[where] = similarity[np.ix_(models, self.columns)]
        return result


def draws(num: int, resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return how often each of ``num`` is drawn in every resample, ``(B, num)``."""
    return rng.multinomial(num, np.full(num, 1 / num), size=resamples)


def _resample(
    stack: Stack,
    plan: _Plan,
    own: Array,
    groups: Sequence[tuple[int, int]],
    names: Sequence[Sequence[str]],
    resamples: int,
    seed: int,
) -> Array:
    rng = np.random.default_rng(seed)
    images = draws(num_images(stack.vectors.shape[1]), resamples, rng)
    images = images[(images > 0).sum(1) >= FEWEST_IMAGES]
    people = _drawn(names, len(images), rng)
    result = np.empty((3, len(images), plan.num_rows, len(groups)))
    for k, counts in enumerate(images):
        scores = plan.scores(stack, counts)
        for t, (a, b) in enumerate(groups):
            result[0, k, :, t] = scores[:, a:b] @ people[t][k]
            result[1, k, :, t] = own[:, a:b] @ people[t][k]
            result[2, k, :, t] = scores[:, a:b].mean(1)
    return result


def _people(targets: Mapping[str, Array], people: Mapping[str, Sequence[str]] | None) -> list[Sequence[str]]:
    """Return the names of every target's subjects; names that occur nowhere else where none were given."""
    return [(people or {}).get(t) or [f"{t} {k}" for k in range(len(v))] for t, v in targets.items()]


def _drawn(names: Sequence[Sequence[str]], resamples: int, rng: np.random.Generator) -> list[Array]:
    """Return the weight of every target's subjects in every resample, ``(B, S)``; one draw per set of people."""
    drawn: dict[tuple[str, ...], Array] = {}
    found = []
    for people in names:
        everyone = tuple(sorted(people))
        if everyone not in drawn:
            drawn[everyone] = draws(len(everyone), resamples, rng) / len(everyone)
        found.append(drawn[everyone][:, [everyone.index(p) for p in people]])
    return found


def dual_variance(variances: Array, num_subjects: int, num_images: int) -> Array:
    """Return the variance for new subjects and images from ``(3, ...)``: under resampling of both, of each alone.

    Bounded as in rsatoolbox: not below either part alone, not above that of both.
    """
    both, subject, image = variances
    if num_subjects < 2:
        return num_images / (num_images - 1) * image
    s, i = num_subjects / (num_subjects - 1), num_images / (num_images - 1)
    variance = s * subject + i * image - s * i * (both - subject - image)
    return np.minimum(np.maximum(np.maximum(variance, s * subject), i * image), both)


def _spread(resampled: Array, num_subjects: int, stack: Stack) -> Array:
    """Return half the width of the 95 % interval of each row, from its resamples ``(3, B, rows)``."""
    if resampled.shape[1] < 2:
        return np.full(resampled.shape[2], np.nan)
    return half_width(resampled, num_subjects, num_images(stack.vectors.shape[1]))


def half_width(resampled: Array, num_subjects: int, num: int) -> Array:
    """Return half the width of the 95 % t interval from resamples ``(3, B, ...)`` of S subjects and N images."""
    from scipy.special import stdtrit

    variance = dual_variance(resampled.var(1, ddof=1), num_subjects, num)
    freedom = (num if num_subjects < 2 else min(num_subjects, num)) - 1
    return np.asarray(stdtrit(freedom, 0.975) * np.sqrt(variance))
