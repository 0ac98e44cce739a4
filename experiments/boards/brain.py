"""The brain pillar of the leaderboard: a table of its own below the main one. Imports no torch.

Raw values and what is left of them stand side by side, because a raw value may be the categories' or the
silhouettes'; simulated data say so in the column's name. Brain data of a user's own get columns of their own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.cells import Where, named, said

REAL, SIMULATED = "objects92", "simulated_ventral_stream"
ROI, EARLY = "IT", "EVC"
# Name of a number → benchmark, metric, target, field of the record.
NUMBERS: dict[str, Where] = {
    "early": (REAL, "activation_best", EARLY),
    "early_left": (REAL, "activation_given_low_level_best", EARLY),
    "early_untrained": (REAL, "untrained_activation_best", EARLY),
    "early_signal": (REAL, "signal_pseudo_label_best", EARLY),
    "activation": (REAL, "activation_best", ROI),
    "activation_left": (REAL, "activation_given_low_level_best", ROI),
    "untrained": (REAL, "untrained_activation_best", ROI),
    "signal": (REAL, "signal_pseudo_label_best", ROI),
    "signal_left": (REAL, "signal_pseudo_label_given_all_best", ROI),
    "label_signal": (REAL, "signal_label_best", ROI),
    "label_signal_left": (REAL, "signal_label_given_label_best", ROI),
    "local_signal": (REAL, "signal_unsupervised_best", ROI),
    "local_signal_left": (REAL, "signal_unsupervised_given_all_best", ROI),
    "slope": (REAL, "activation_slope", None),
    "slope_p": (REAL, "activation_slope_p", None),
    "signal_slope": (REAL, "signal_pseudo_label_slope", None),
    "signal_slope_p": (REAL, "signal_pseudo_label_slope_p", None),
    "local_slope": (REAL, "signal_unsupervised_slope", None),
    "local_slope_p": (REAL, "signal_unsupervised_slope_p", None),
    "output_error": (REAL, "control_output_error_label", ROI),
    "simulated_space": (SIMULATED, "activation_spatial", None),
    "simulated_signal_space": (SIMULATED, "signal_pseudo_label_spatial", None),
    "simulated_space_p": (SIMULATED, "activation_spatial_p", None),
    "simulated_time": (SIMULATED, "activation_temporal", None),
    "simulated_time_p": (SIMULATED, "activation_temporal_p", None),
    "simulated_signal_time": (SIMULATED, "signal_pseudo_label_temporal", None),
    **{
        f"control_{n}": (REAL, f"control_{n}", ROI)
        for n in ("pixels", "luminance", "gabor", "silhouette", "label_animacy")
    },
    **{
        f"ceiling_{roi}_{end}": (REAL, "activation", roi, f"ceiling_{end}")
        for roi in (EARLY, ROI)
        for end in ("low", "high")
    },
}
# Column → the numbers in its cells, the second one being what is left of the first.
REAL_COLUMNS = {
    "EVC: activation → left": ("early", "early_left"),
    "IT: activation → left": ("activation", "activation_left"),
    "before training": ("untrained",),
    "IT: signal → left": ("signal", "signal_left"),
    "IT: label signal → left": ("label_signal", "label_signal_left"),
    "its output error": ("output_error",),
    "slope": ("slope",),
    "slope, signal": ("signal_slope",),
}
# Of rules that change weights whatever the loss: where there is one.
LOCAL_COLUMNS = {
    "IT: local signal → left": ("local_signal", "local_signal_left"),
    "slope, local signal": ("local_slope",),
}
SIMULATED_COLUMNS = {
    "space (sim.)": ("simulated_space",),
    "signal: space (sim.)": ("simulated_signal_space",),
    "time (sim.)": ("simulated_time",),
    "signal: time (sim.)": ("simulated_signal_time",),
}
NOTES = (
    "Brain. EVC, IT: mean Spearman of RDMs with 15 subjects' (objects92), at the stage that other images chose; left: "
    "given pixels, Gabor energy and silhouettes (activation); given these, the categories and the activations (signal "
    "of the network's own answer); given the categories (signal of the category loss). its output error: that loss's "
    "error at the network's output, which no learning rule has carried anywhere yet. local signal: what a rule changes "
    "whatever the loss; left as of the own answer's.",
    "slope: rise of IT above EVC over the stages, in units of the noise ceiling; positive = later stages are more like "
    "IT. sim.: SIMULATED data of known hierarchy, no brain: +1 = stages in the order of areas (space) or of latencies "
    "(time).",
)


def numbers(seen: Sequence[tuple[str, str, str]]) -> dict[str, Where]:
    """Return every number's place: those of the sets that plasticbench knows, and of others that were measured."""
    found = dict(NUMBERS)
    for name, rois in others(seen).items():
        for roi in rois:
            for kind, metric in OWN.items():
                found[f"{name}_{roi}_{kind}"] = (name, metric, roi)
        for metric in ("activation_spatial", "activation_slope"):
            if (name, metric) in {(b, m) for b, m, _ in seen}:
                found[f"{name}_{metric.removeprefix('activation_')}"] = (name, metric, None)
    return found


# What is shown of every region of other brain data.
OWN = {
    "activation": "activation_best",
    "activation_left": "activation_given_low_level_best",
    "signal": "signal_pseudo_label_best",
    "signal_left": "signal_pseudo_label_given_all_best",
}


def others(seen: Sequence[tuple[str, str, str]]) -> dict[str, list[str]]:
    """Return the regions of brain data that plasticbench does not know by name, as scores tell them."""
    found: dict[str, list[str]] = {}
    for benchmark, metric, target in seen:
        if metric == "activation_best" and target and benchmark not in (REAL, SIMULATED):
            found.setdefault(benchmark, []).append(target)
    return found


def columns(rows: Sequence[Any]) -> dict[str, tuple[str, ...]]:
    """Return the columns for which at least one row was measured, or says why it was not."""
    found: dict[str, tuple[str, ...]] = {}
    for part in (REAL_COLUMNS, LOCAL_COLUMNS, SIMULATED_COLUMNS):
        names = [n for group in part.values() for n in group]
        if any(said(r.pillars["brain"][n]) for r in rows for n in names):
            found |= part
    every = [n for r in rows[:1] for n in r.pillars["brain"] if n not in NUMBERS]
    for name in every:
        simulated = any(r.pillars["brain"][name].said.startswith("simulated") for r in rows)
        if name.endswith("_left"):
            continue
        place, _, kind = name.rpartition("_")
        words = (f"{place}: {kind}" if kind in OWN else name) + " (sim.)" * simulated
        left = f"{name}_left"
        found[f"{words} → left" if left in every else words] = (name, left) if left in every else (name,)
    return found


def table(rows: Sequence[Any], mark: Callable[[str], str]) -> tuple[list[str], list[list[str]], list[str]]:
    """Return header, cells and lines below; nothing where no row was measured.

    Args:
        rows: Of one setting.
        mark: Turns a reason into a mark.
    """
    chosen = columns(rows)
    if not chosen:
        return [], [], []
    lines = [
        [named(r), *(_cell(r.pillars["brain"], names, mark) for names in chosen.values())]
        for r in rows
        if any(said(r.pillars["brain"][n]) for group in chosen.values() for n in group)
    ]
    below = [*_ceilings(rows), *_controls(rows)] if any(n in chosen for n in REAL_COLUMNS) else []
    return ["brain", *chosen], lines, [*below, *NOTES]


def _cell(brain: Mapping[str, Any], names: Sequence[str], mark: Callable[[str], str]) -> str:
    first = brain[names[0]]
    if first.value is None:
        return f"n/a{mark(first.reason)}" if first.reason else ""
    text = f"{first.value:+.3f}"
    if first.low is not None:
        text += f" [{first.low:+.2f}, {first.high:+.2f}]"
    for name in names[1:]:
        left = brain[name]
        text += f" → {left.value:+.3f}" if left.value is not None else " → n/a"
    return text


def _ceilings(rows: Sequence[Any]) -> list[str]:
    """Return one line with the noise ceilings, which are the data's and the same for every row."""
    found = {
        name: next((v for r in rows if (v := r.pillars["brain"][name].value) is not None), None)
        for name in NUMBERS
        if name.startswith("ceiling_")
    }
    bounds = {roi: [found[f"ceiling_{roi}_{end}"] for end in ("low", "high")] for roi in (EARLY, ROI)}
    told = [f"{roi} {low:.3f} to {high:.3f}" for roi, (low, high) in bounds.items() if None not in (low, high)]
    return [f"noise ceiling, what a perfect model would reach: {', '.join(told)}"] if told else []


def _controls(rows: Sequence[Any]) -> list[str]:
    """Return one line with what needs no network and is the same for every row."""
    found = {}
    for name in NUMBERS:
        if name.startswith("control_"):
            values = [r.pillars["brain"][name].value for r in rows if r.pillars["brain"][name].value is not None]
            if values:
                found[name.removeprefix("control_").replace("_", " ")] = sum(values) / len(values)
    if not found:
        return []
    return ["IT without any network, the same for every row: " + ", ".join(f"{n} {v:+.3f}" for n, v in found.items())]
