"""The best stage of each region on nilearn's bundled fsaverage5 surface (10,242 vertices per hemisphere).

nilearn bundles no atlas of visual areas. Without labels of your own, regions are drawn as patches around
approximate centres on the inflated surface, and the picture says so. Labels of your own are FreeSurfer annotations in
the folder ``cortex`` of the brain data (``read_labels``).
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.brain.inference import Alignment
from evaluation.brain.models import Rows
from evaluation.brain.rdm import Array

VERTICES = 10242
# Approximate centres on the left pial surface, MNI mm (after the group maps of Wang et al. 2015, by eye) and the
# radius of the patch in mm. The right hemisphere is mirrored.
PATCHES: dict[str, tuple[tuple[float, float, float], float]] = {
    "V1": ((-9, -93, 2), 15),
    "V2": ((-16, -96, 13), 12),
    "V3": ((-24, -93, 15), 11),
    "V4": ((-29, -80, -13), 12),
    "EVC": ((-12, -94, 4), 22),
    "LO": ((-43, -78, -4), 13),
    "LOC": ((-43, -74, -8), 15),
    "IT": ((-42, -50, -19), 20),
}
APPROXIMATE = "regions are approximate patches, not an atlas"


@dataclass(frozen=True)
class Labels:
    """Regions of one's own on fsaverage5.

    Attributes:
        left: ``(10242,)`` integers.
        right: ``(10242,)`` integers.
        names: Integer → ROI.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    names: Mapping[int, str]

    def __post_init__(self) -> None:
        for side in (self.left, self.right):
            if side.shape != (VERTICES,):
                raise ValueError(f"labels must be ({VERTICES},) per hemisphere (fsaverage5), got {side.shape}")


def unreadable(folder: Path | None) -> list[str]:
    """Return what is wrong with the annotations in a folder; nothing where they can be read or none are meant."""
    try:
        if folder:
            read_labels(folder)
    except ValueError as error:
        return [str(error)]
    return []


def read_labels(folder: Path) -> Labels:
    """Return the regions of ``lh.annot`` and ``rh.annot`` in a folder (FreeSurfer annotations).

    fsaverage's first 10,242 vertices are those of fsaverage5.

    Raises:
        ValueError: If one is not there, cannot be read, or is of another surface.
    """
    from nibabel.freesurfer.io import read_annot

    sides: dict[str, NDArray[np.int64]] = {}
    names: dict[int, str] = {}
    for side, file in (("left", "lh.annot"), ("right", "rh.annot")):
        path = folder / file
        try:
            values, _, found = read_annot(str(path))
        except Exception as error:
            raise ValueError(f"cortex/{file}: not there, or no FreeSurfer annotation ({error})") from error
        if len(values) < VERTICES:
            raise ValueError(f"cortex/{file}: has {len(values)} vertices; fsaverage5 has {VERTICES}")
        own = dict(enumerate(n.decode() if isinstance(n, bytes) else str(n) for n in found))
        offset = len(names)  # the hemispheres' tables need not agree
        names |= {k + offset: n for k, n in own.items()}
        chosen = np.asarray(values[:VERTICES], dtype=np.int64)
        sides[side] = np.where(chosen < 0, -1, chosen + offset)
    return Labels(sides["left"], sides["right"], names)


def drawable(rois: Sequence[str], labels: Labels | None = None) -> bool:
    """Return whether there are at least two regions with a place on the cortex."""
    return sum(r in (PATCHES if labels is None else labels.names.values()) for r in rois) > 1


@functools.cache
def _surface(kind: str) -> dict[str, tuple[Array, Any]]:
    from nilearn import surface
    from nilearn.datasets import fetch_surf_fsaverage

    files = fetch_surf_fsaverage("fsaverage5")
    found = {}
    for side in ("left", "right"):
        mesh = surface.load_surf_mesh(files[f"{kind}_{side}"])
        found[side] = np.asarray(mesh.coordinates, dtype=np.float64), mesh
    return found


def regions(rois: Sequence[str], labels: Labels | None = None) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Return ROI → hemisphere → which vertices belong to it; nearest centre wins where patches overlap."""
    if labels is not None:
        sides = {"left": labels.left, "right": labels.right}
        return {
            r: {s: np.isin(v, [k for k, n in labels.names.items() if n == r]) for s, v in sides.items()} for r in rois
        }
    known = [r for r in rois if r in PATCHES]
    found: dict[str, dict[str, NDArray[np.bool_]]] = {r: {} for r in known}
    for side, (points, _) in _surface("pial").items():
        mirror = np.array([1.0 if side == "left" else -1.0, 1.0, 1.0])
        away = np.stack([np.linalg.norm(points - mirror * PATCHES[r][0], axis=1) / PATCHES[r][1] for r in known])
        for k, roi in enumerate(known):
            found[roi][side] = (away[k] < 1) & (away.argmin(0) == k)
    return found


def best_stage(
    path: Path, title: str, rows: Rows, found: Alignment, rois: Sequence[str], labels: Labels | None = None
) -> Path:
    """Draw which stage matches each region best, for activations and for the first signal, from below and behind."""
    from matplotlib.colors import BoundaryNorm
    from matplotlib.figure import Figure
    from nilearn import plotting, surface
    from nilearn.datasets import fetch_surf_fsaverage

    files = fetch_surf_fsaverage("fsaverage5")
    families = ["activation", *[f for f in rows.families if f.startswith("signal") and rows.of(f)][:1]]
    where = regions(rois, labels)
    drawing = Figure(figsize=(9.4, 2.7 * len(families)), layout="constrained")
    views = (("left", "ventral"), ("left", "posterior"), ("left", "medial"))
    from matplotlib import colormaps

    colours = colormaps["viridis"].resampled(max(2, len(rows.stages)))
    for f, family in enumerate(families):
        best = {r: _best(rows, found, family, r) for r in where}
        for v, (side, view) in enumerate(views):
            axes = drawing.add_subplot(len(families), len(views), f * len(views) + v + 1, projection="3d")
            values = np.full(VERTICES, np.nan)
            for roi, masks in where.items():
                if best[roi] is not None:
                    values[masks[side]] = best[roi]
            plotting.plot_surf_stat_map(
                files[f"infl_{side}"], values, hemi=side, view=view, axes=axes, colorbar=False, cmap=colours,
                vmin=-0.5, vmax=len(rows.stages) - 0.5, bg_map=surface.load_surf_data(files[f"sulc_{side}"]),
                symmetric_cbar=False, threshold=None, figure=drawing,
            )  # fmt: skip
            axes.set_title(view, fontsize=7)
            if v == 0:
                names = "\n".join(f"{r}: {rows.stages[int(b)]}" for r, b in best.items() if b is not None)
                axes.text2D(-0.35, 0.75, f"{family.replace('_', ' ')}\n\n{names}", transform=axes.transAxes, fontsize=7)
    from matplotlib.cm import ScalarMappable

    norm = BoundaryNorm(np.arange(-0.5, len(rows.stages)), colours.N)
    bar = drawing.colorbar(ScalarMappable(norm, colours), ax=drawing.axes, shrink=0.5, ticks=range(len(rows.stages)))
    bar.ax.set_yticklabels(rows.stages, fontsize=7)
    note = "" if labels is not None else f" ({APPROXIMATE})"
    drawing.suptitle(f"{title}: best stage on fsaverage5{note}", fontsize=9)
    drawing.savefig(path, dpi=90)
    return path


def _best(rows: Rows, found: Alignment, family: str, roi: str) -> float | None:
    where = rows.where(family)
    if roi not in found.targets or not where:
        return None
    column = found.score[where, found.targets.index(roi)]
    if not np.isfinite(column).any():
        return None
    return float(rows.stages.index(rows.entries[where[int(np.nanargmax(column))]].stage))
