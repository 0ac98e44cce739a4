"""Picture of the two-frame read-out: which stages see real rotation, and how a snake's rise in contrast turns them."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.base import Score
from evaluation.figures import figure
from evaluation.illusions.snakes_scores import LEAST_CORRELATION, LEAST_SIGN

NULL = "null_"


def speeds(folder: Path, name: str, scores: Sequence[Score], codes: Sequence[str]) -> Path:
    """Draw the turn over a rise in contrast, by condition (colours) and stage (groups), null observers at the right.

    Below every stage stand its sign accuracy and correlation on real rotation; a stage that fails a gate has no bars.

    Args:
        folder: Where the picture goes.
        name: Of the observer.
        scores: Of the benchmark.
        codes: Of the conditions.
    """
    shown = [s for s in scores if s.stage]
    stages = list(dict.fromkeys((s.metric.startswith(NULL), s.stage) for s in shown))
    path = folder / "motion_readout.png"
    with figure(path, 1.3 * len(stages) + 1.6, 3.6) as axes:
        labels = []
        for place, (null, stage) in enumerate(stages):
            own = [s for s in shown if (s.metric.startswith(NULL), s.stage) == (null, stage)]
            by_code = {s.target: s for s in own if s.metric.endswith("speed") and s.raw is not None}
            for n, code in enumerate(codes):
                if (found := by_code.get(f"rise {code}")) is not None and found.raw is not None:
                    x = place + 0.8 * ((n + 0.5) / len(codes) - 0.5)
                    ends = [abs(e - found.raw) if e is not None else 0.0 for e in (found.ci_low, found.ci_high)]
                    axes.bar(x, found.raw, 0.7 / len(codes), color=f"C{n}")
                    axes.errorbar(x, found.raw, np.array(ends)[:, None], color="0.2", lw=0.8)
            sign, r = (
                next((s.raw for s in own if s.metric.endswith(m) and s.raw is not None), math.nan)
                for m in ("real_sign_accuracy", "real_correlation")
            )
            passed = sign >= LEAST_SIGN and r >= LEAST_CORRELATION
            label = ("null: " if null else "") + stage.replace("_", "\n")
            labels.append(f"{label}\n{sign:.0%}, r = {r:.2f}" + ("" if passed else "\nn/a"))
        for n, code in enumerate(codes):
            axes.bar(0, 0, 0, color=f"C{n}", label=code)
        axes.axhline(0, color="0.7", lw=0.8)
        axes.set_xticks(range(len(stages)), labels, fontsize=7)
        axes.set(ylabel="turn (deg), + as humans see", title=f"A rise in contrast: {name}")
        axes.title.set_fontsize(9)
        axes.legend(frameon=False, fontsize=7)
    return path
