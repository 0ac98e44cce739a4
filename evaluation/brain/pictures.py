"""Pictures of an examination: matrix, slopes, controls, time course, cortex. All from one measurement."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.brain.data import BrainData
from evaluation.brain.hierarchy import peak_of_effect
from evaluation.brain.hierarchy_reports import stage_time
from evaluation.brain.inference import Alignment
from evaluation.brain.models import SHUFFLED, UNTRAINED, Rows
from evaluation.brain.rdm import Array, Method

DPI = 100
COLOURS = {"activation": "#1b6ca8", "signal": "#d1495b", "untrained": "#9a9a9a", "control": "#c9b458"}
ROI_COLOURS = ("#30638e", "#00798c", "#edae49", "#d1495b", "#6a4c93")


def draw_all(
    folder: Path, stem: str, title: str, data: BrainData, rows: Rows, found: Alignment, method: Method
) -> list[Path]:
    """Write every picture that the data allow and return their paths; none of a network without two usable stages."""
    if not [f for f in shown(rows) if not f.startswith(UNTRAINED) and not f.endswith(SHUFFLED)]:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    paths = [matrix(folder / f"{stem}_matrix.png", title, rows, found)]
    if not data.card.simulated:  # which is measured after every run, and shows no more than this
        paths.append(slopes(folder / f"{stem}_stages.png", title, rows, found))
        paths.append(ladder(folder / f"{stem}_controls.png", title, data, rows, found))
    if data.movie is not None:
        paths += time_course(folder, stem, title, data, rows, method)
    from evaluation.brain import cortex

    columns = [t for t in data.card.rois if t in found.targets]
    labels = cortex.read_labels(data.cortex) if data.cortex else None
    # Simulated regions have no place on a cortex.
    if cortex.drawable(columns, labels) and rows.of("activation") and not data.card.simulated:
        paths.append(cortex.best_stage(folder / f"{stem}_cortex.png", title, rows, found, columns, labels))
    return paths


def _figure(width: float, height: float, **grid: Any) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    return drawing, drawing.subplots(**grid)


def _placed(width: float, height: float, margins: Sequence[float], **grid: Any) -> tuple[Any, Any, Any]:
    """Return a figure, its grid and an axis for the colour bar, placed by margins instead of a layout engine.

    Args:
        width: Inches.
        height: Inches.
        margins: Left, bottom, right, top, in inches; the colour bar stands in the right one.
        **grid: Of ``Figure.subplots``.
    """
    from matplotlib.figure import Figure

    left, bottom, right, top = margins
    drawing = Figure(figsize=(width, height))
    axes = drawing.subplots(**grid)
    drawing.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height, 0.08, 0.22)
    return drawing, axes, drawing.add_axes((1 - (right - 0.15) / width, 0.3, 0.12 / width, 0.4))


def _save(drawing: Any, path: Path) -> Path:
    drawing.savefig(path, dpi=DPI)
    return path


def shown(rows: Rows) -> list[str]:
    """Return the families in the order of the pictures: activations, signals, their untrained counterparts."""
    return [f for f in rows.families if len(rows.of(f)) > 1]


def label(family: str) -> str:
    """Return a family's name in words."""
    words = family.replace("signal_", "signal: ").replace("_given_", " | ").replace("_", " ")
    return words


def table(rows: Rows, found: Alignment, metric: str) -> Array:
    """Return stage × target of one metric, nan where it does not exist."""
    values = np.full((len(rows.stages), len(found.targets)), np.nan)
    for i in rows.where(metric):
        values[rows.stages.index(rows.entries[i].stage)] = found.score[i]
    return values


def matrix(path: Path, title: str, rows: Rows, found: Alignment) -> Path:
    """Draw stage × target for activations and every signal, raw above and given labels below, with ceilings."""
    families = [f for f in shown(rows) if not f.startswith(UNTRAINED) and not f.endswith(SHUFFLED)]
    drawing, grid, bar = _placed(
        1.7 + (0.36 * len(found.targets) + 0.2) * len(families), 5.6, (0.7, 1.1, 0.9, 0.75), nrows=2,
        ncols=len(families), squeeze=False, sharey=True,
    )  # fmt: skip
    everything = [table(rows, found, f + k) for f in families for k in ("", "_given_label")]
    finite = np.concatenate([e[np.isfinite(e)] for e in everything])
    top = max(0.05, float(np.abs(finite).max())) if len(finite) else 1.0
    names = [f"{t}\n{_ceiling(found, t)}" for t in found.targets]
    for c, family in enumerate(families):
        for r, kind in enumerate(("", "_given_label")):
            axes, values = grid[r, c], table(rows, found, family + kind)
            image = axes.imshow(values, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto")
            for y, x in np.argwhere(np.isfinite(values)):
                text = f"{values[y, x]:.2f}".replace("0.", ".")
                axes.text(x, y, text, ha="center", va="center", fontsize=6.5,
                          color="w" if abs(values[y, x]) > 0.6 * top else "k")  # fmt: skip
            axes.set_xticks(range(len(names)), names if r else [""] * len(names), fontsize=6, rotation=90)
            axes.set_yticks(range(len(rows.stages)), rows.stages, fontsize=8)
            axes.set_title(label(family) + (" | labels" if kind else ""), fontsize=8)
            if not np.isfinite(values).any():
                axes.text(0.5, 0.5, "n/a", transform=axes.transAxes, ha="center")
    drawing.colorbar(image, cax=bar, label="similarity of RDMs (mean over subjects)")
    drawing.suptitle(f"{title}\nstage × target; below the target: noise ceiling", fontsize=9)
    return _save(drawing, path)


def _ceiling(found: Alignment, target: str) -> str:
    bounds = found.ceilings[target]
    return f"{bounds[0]:.2f}–{bounds[1]:.2f}" if bounds else "1 RDM"


def slopes(path: Path, title: str, rows: Rows, found: Alignment) -> Path:
    """Draw the similarity over stages, one panel per family, one line per ROI, untrained dashed."""
    families = [f for f in shown(rows) if not f.startswith(UNTRAINED)]
    drawing, grid = _figure(2.6 * len(families) + 0.6, 3.4, ncols=len(families), squeeze=False, sharey=True)
    x = np.arange(len(rows.stages))
    for axes, family in zip(grid[0], families, strict=True):
        before = table(rows, found, f"{UNTRAINED}{family}")
        values = table(rows, found, family)
        places = [rows.stages.index(rows.entries[i].stage) for i in rows.where(family)]
        for t, target in enumerate(found.targets):
            colour = ROI_COLOURS[t % len(ROI_COLOURS)]
            axes.plot(x, values[:, t], "-o", ms=3.5, lw=1.6, color=colour, label=target)
            if np.isfinite(before[:, t]).any():
                axes.plot(x, before[:, t], "--", lw=0.9, color=colour, alpha=0.7)
            ends = np.array([[found.low[i, t], found.high[i, t]] for i in rows.where(family)])
            if np.isfinite(ends).all():
                axes.fill_between(places, ends[:, 0], ends[:, 1], color=colour, alpha=0.12, lw=0)
        axes.axhline(0, color="0.6", lw=0.7)
        axes.set_xticks(x, rows.stages, rotation=45, fontsize=8, ha="right")
        axes.set_title(label(family), fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].set_ylabel("similarity of RDMs")
    grid[0, 0].legend(frameon=False, fontsize=7)
    drawing.suptitle(f"{title}; dashed: the same network before training; bands: 95 %", fontsize=9)
    return _save(drawing, path)


def ladder(path: Path, title: str, data: BrainData, rows: Rows, found: Alignment) -> Path:
    """Draw, per target of the hierarchy, the best stage of every family among all controls, on one scale."""
    columns = [found.targets.index(r) for r in data.card.rois if r in found.targets] or [0]
    drawing, grid = _figure(
        3.1 * len(columns) + 1.6, 0.19 * (len(shown(rows)) * 2 + len(rows.controls)) + 1.4, ncols=len(columns),
        squeeze=False,
    )  # fmt: skip
    for axes, t in zip(grid[0], columns, strict=True):
        bars: list[tuple[str, float, str]] = []
        for family in shown(rows):
            kind = "untrained" if family.startswith(UNTRAINED) else family.split("_")[0]
            for metric in (family, f"{family}_given_label"):
                best = [found.score[i, t] for i in rows.where(metric) if np.isfinite(found.score[i, t])]
                if best:
                    bars.append((label(metric), max(best), COLOURS[kind]))
        for name in rows.controls:
            (i,) = rows.where(f"control_{name}")
            bars.append((name.replace("_", " "), float(found.score[i, t]), COLOURS["control"]))
        bars.sort(key=lambda b: b[1])
        axes.barh([b[0] for b in bars], [b[1] for b in bars], color=[b[2] for b in bars], height=0.75)
        axes.tick_params(axis="y", labelsize=6)
        axes.axvline(0, color="0.4", lw=0.7)
        if bounds := found.ceilings[found.targets[t]]:
            axes.axvspan(*bounds, color="0.85", zorder=0)
        axes.set_title(found.targets[t], fontsize=9)
        axes.set_xlabel("similarity (best stage)", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    drawing.suptitle(
        f"{title}\nbest stage of each family beside its controls (best on these images; grey: noise ceiling)",
        fontsize=9,
    )
    return _save(drawing, path)


def time_course(folder: Path, stem: str, title: str, data: BrainData, rows: Rows, method: Method) -> list[Path]:
    """Draw stage × time and the stages' latencies; write the matrices as CSV beside them."""
    assert data.times is not None
    families = [f for f in shown(rows) if not f.startswith(UNTRAINED)]
    curves = stage_time(rows, data, families, method)
    means = {f: np.stack([c.mean(0) for c in v.values()]) for f, v in curves.items()}
    _write_csv(folder / f"{stem}_time.csv", data.times, curves)
    drawing, grid, bar = _placed(
        7.4, 1.5 * len(families) + 1.2, (0.9, 0.55, 1.0, 0.75), nrows=len(families), squeeze=False, sharex=True
    )
    top = max(float(np.abs(m).max()) for m in means.values())
    step = float(np.diff(data.times).mean())
    for axes, (family, mean) in zip(grid[:, 0], means.items(), strict=True):
        stages = list(curves[family])
        extent = (data.times[0] - step / 2, data.times[-1] + step / 2, len(stages) - 0.5, -0.5)
        image = axes.imshow(mean, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto", extent=extent)
        peaks = [peak_of_effect(c, data.times) for c in curves[family].values()]
        axes.plot(peaks, range(len(stages)), "k.-", lw=0.8, ms=5)
        axes.axvline(0, color="k", lw=0.8, ls=":")
        axes.set_yticks(range(len(stages)), stages, fontsize=8)
        axes.set_title(label(family), fontsize=8, loc="left")
    grid[-1, 0].set_xlabel("time after stimulus onset (ms)")
    drawing.colorbar(image, cax=bar, label="similarity of RDMs")
    drawing.suptitle(f"{title}\nstage × time; dots: peak latency", fontsize=9)
    return [_save(drawing, folder / f"{stem}_time.png")]


def _write_csv(path: Path, times: Array, curves: Mapping[str, Mapping[str, Array]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["family", "stage", "subject", *(f"{t:g}" for t in times)])
        for family, stages in curves.items():
            for stage, people in stages.items():
                writer.writerows([family, stage, s, *(f"{v:.6g}" for v in c)] for s, c in enumerate(people))
