"""``plasticbench brain``: brain data sets checked, imported, and networks scored on them. Imports nothing heavy."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.catalogues import BENCHMARKS, BRAINS
from training.errors import UserError, unknown


def add_parser(commands: Any, data: Callable[[argparse.ArgumentParser], None], run: Callable[[Any], None]) -> None:
    """Add the command to the command line.

    Args:
        commands: Where commands are added.
        data: Adds the options of data sets.
        run: Adds the options of runs, with those of data sets.
    """
    top = commands.add_parser("brain", help="brain data: check, import, score")
    verbs = top.add_subparsers(required=True, metavar="check|import|score")
    check = verbs.add_parser("check", help="say exactly what is wrong with a folder of brain data, or what is in it")
    check.add_argument("folder", metavar="FOLDER_OR_NAME")
    data(check)
    check.set_defaults(command=check_command)

    score = verbs.add_parser("score", help="score finished runs on any brain data, with any options")
    score.add_argument("runs_given", nargs="+", type=Path, metavar="RUN", help="run directory, or a folder of them")
    score.add_argument("--on", required=True, metavar="FOLDER_OR_NAME", help="brain data")
    score.add_argument("--set", dest="options", action="append", default=[], metavar="key=value",
        help="resamples=1000, distance=euclidean, pooling=global, reduction=pca, banded=true, …")  # fmt: skip
    run(score)
    score.set_defaults(command=score_command)

    imported = verbs.add_parser(
        "import",
        help="make a folder of brain data from files of the field",
        description="Make a folder of brain data. Give the images and one source: --rdms, --responses, --bids or "
        "--epochs; or --set NAME to write out a data set that plasticbench can read.",
    )
    imported.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write")
    imported.add_argument("--stimuli", type=Path, help="folder of images, or .npy (sRGB)")
    imported.add_argument("--labels", type=Path, help="CSV: column stimulus, further columns labels")
    imported.add_argument("--rdms", nargs="+", metavar="ROI=FILE[:KEY]",
        help=".npy, .npz or .mat: RDMs of subjects, the same people in the same order in every file")  # fmt: skip
    imported.add_argument("--responses", nargs="+", metavar="ROI=FILE[:KEY]", help="(subjects, images, channels)")
    imported.add_argument("--bids", type=Path, help="folder with sub-*/func/*_bold.nii.gz and *_events.tsv")
    imported.add_argument("--masks", nargs="+", metavar="ROI=FILE", help="3-D masks; {subject} stands for the subject")
    imported.add_argument("--tr", type=float, help="repetition time in s (default: from the images)")
    imported.add_argument("--epochs", nargs="+", type=Path, help="MNE *-epo.fif, one per subject")
    imported.add_argument("--event-names", type=Path, help="CSV: columns event (code), stimulus")
    imported.add_argument("--bin-ms", type=float, default=0.0, help="average time in bins")
    imported.add_argument("--set", dest="known", help="name of a data set: see `plasticbench list brains`")
    for name, what in {
        "name": "of the data set (default: the folder's)", "modality": "fmri, meg, eeg, …", "citation": "what to cite",
        "licence": "its terms",
    }.items():  # fmt: skip
        imported.add_argument(f"--{name}", default="", help=what)
    imported.add_argument("--rois", nargs="+", default=[], help="hierarchy, lowest first (default: as given)")
    data(imported)
    imported.set_defaults(command=import_command)


def _source(options: argparse.Namespace) -> Any:
    from training.config import data_root
    from training.data.base import Source

    return Source(options.data.expanduser().resolve() if options.data else data_root(), options.download)


def load(name: str, source: Any) -> Any:
    """Return the brain data in a folder, or of that name.

    Raises:
        UserError: If they are not there or broken.
    """
    from evaluation.brain.data import Broken, DataMissing
    from evaluation.brain.folder import read

    for folder in (Path(name), source.root / "brains" / name):
        if (folder / "brain.yaml").exists():
            try:
                data = read(folder)
            except Broken as error:
                raise UserError(f"{folder}: " + "\n  ".join(["broken", *error.found])) from error
            refuse_taken(data.card.name, f"{folder / 'brain.yaml'}: name")
            return data
    if name in BRAINS.entries():
        try:
            return BRAINS.load(name)(source)
        except DataMissing as error:
            raise UserError(f"brain data {name}: {error}") from error
    if Path(name).is_dir():
        raise UserError(f"{name}: holds no brain.yaml; every brain data set has a card")
    raise unknown("brain data set", name, [*BRAINS.entries(), *own_brains(source.root)])


def refuse_taken(name: str, where: str) -> None:
    """Make sure that a user's data do not write their scores under the name of a benchmark.

    Raises:
        UserError: If the name is that of a benchmark or a brain data set of plasticbench.
    """
    if name in BENCHMARKS.entries() or name in BRAINS.entries():
        raise UserError(f"{where}: {name!r} is the name of a benchmark; choose another")


def own_brains(root: Path) -> dict[str, str]:
    """Return the user's own data sets under ``<data>/brains``, name → path."""
    return {p.parent.name: str(p.parent) for p in sorted((root / "brains").glob("*/brain.yaml"))}


def check_command(options: argparse.Namespace) -> int:
    """Say what is wrong with brain data, or what is in them."""
    from evaluation.brain.data import problems
    from evaluation.brain.inference import noise_ceiling

    data = load(options.folder, _source(options))
    found = problems(data)
    if found:
        raise UserError(f"{options.folder}: " + "\n  ".join(["broken", *found]))
    card = data.card
    print(f"{card.name}: {card.modality}{', SIMULATED' if card.simulated else ''}, {len(data)} images "
          f"of {tuple(data.stimuli.shape[1:])}")  # fmt: skip
    for name, rdms in data.targets.items():
        bounds = {m: noise_ceiling(rdms, m) for m in ("corr", "spearman")}
        ceiling = ", ".join(f"{b[0]:.3f}–{b[1]:.3f} ({m})" for m, b in bounds.items() if b) or "none: one RDM"
        place = f"hierarchy {card.rois.index(name) + 1}" if name in card.rois else "beside"
        voxels = f", {sum(r.shape[1] for r in data.responses[name])} channels" if name in data.responses else ""
        print(f"  {name}: {len(rdms)} subjects{voxels}, {place}; noise ceiling {ceiling}")
    if data.movie is not None and data.times is not None:
        span = f"{data.times[0]:g} to {data.times[-1]:g} ms"
        print(f"  time course: {len(data.movie)} subjects, {len(data.times)} times, {span}")
    for name, values in data.labels.items():
        print(f"  labels {name}: {len(set(values.tolist()))} categories")
    print(f"  cite: {card.citation}\n  licence: {card.licence}")
    return 0


def score_command(options: argparse.Namespace) -> int:
    """Score finished runs on brain data."""
    from experiments.commands import execution_of
    from experiments.runner import measure_with
    from training.directory import run_directories

    execution = execution_of(options)
    data = load(options.on, _source(options))
    bench = benchmark_on(data, options_of(options.options))
    for root in options.runs_given:
        for directory in run_directories(root):
            if directory.status()["state"] != "done":
                print(f"{directory.path}: skipped, {directory.status()['state'] or 'not started'}")
                continue
            num = measure_with(directory, execution, bench)
            print(f"{directory.path}: {num} scores of {bench.name}")
    return 0


def options_of(given: Sequence[str]) -> dict[str, Any]:
    """Return options from ``key=value`` with values in YAML.

    Raises:
        UserError: If one is not written so.
    """
    import yaml

    values = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"--set {text!r}: expected key=value")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--set {text!r}: the value is no YAML ({' '.join(str(error).split())[:120]})") from error
    return values


def benchmark_on(data: Any, values: Mapping[str, Any]) -> Any:
    """Return the benchmark of some brain data with some options, which are part of its name.

    Raises:
        UserError: If an option is unknown or out of range.
    """
    import inspect

    from evaluation.brain._examination import BrainBenchmark

    name = data.card.name
    base: Any = BENCHMARKS.load(name) if name in BENCHMARKS.entries() else BrainBenchmark
    if not issubclass(base, BrainBenchmark):
        raise UserError(f"brain data {name!r} have the name of another benchmark; choose another in brain.yaml")
    known = inspect.signature(base.__init__).parameters
    for key in values:
        if key not in known or key == "self":
            raise unknown("option", key, [k for k in known if k != "self"])
    given = ", ".join(f"{k}={v}" for k, v in sorted(values.items()))
    made: Any = type(
        "BrainData",
        (base,),
        {
            "name": f"{name}({given})" if given else name,
            "reference": data.card.citation,
            "load": lambda self, source: data,
            "__doc__": f"{name}, on request.",
        },
    )  # fmt: skip
    try:
        bench = made(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (TypeError, ValueError) as error:
        raise UserError(f"--set: {error}") from error
    if len(data.card.rois) == 2:
        made.headline = "activation_slope"
    return bench


def _pairs(given: Sequence[str] | None, option: str) -> dict[str, tuple[Path, str]]:
    """Return ROI → (file, key) from ``ROI=FILE[:KEY]``."""
    found = {}
    for text in given or ():
        roi, equals, place = text.partition("=")
        if not equals or not roi:
            raise UserError(f"{option} {text!r}: expected ROI=FILE")
        path, colon, key = place.rpartition(":")
        found[roi] = (Path(path), key) if colon and not Path(place).exists() else (Path(place), "")
    return found


def import_command(options: argparse.Namespace) -> int:
    """Write a folder of brain data."""
    from evaluation.brain.data import Broken
    from evaluation.brain.folder import write
    from evaluation.brain.importers import NotReadable

    name = options.name or options.folder.resolve().name
    refuse_taken(name, "--name" if options.name else str(options.folder))
    try:
        data = load(options.known, _source(options)) if options.known else _assembled(options)
        data = dataclasses.replace(data, card=dataclasses.replace(data.card, name=name))
        write(data, options.folder)
    except NotReadable as error:
        raise UserError(str(error)) from error
    except Broken as error:
        raise UserError("cannot be imported:\n  " + "\n  ".join(error.found)) from error
    except FileExistsError as error:
        raise UserError(str(error)) from error
    print(f"{options.folder}\nnext: plasticbench brain check {options.folder}\n"
          f"      plasticbench brain score runs --on {options.folder}")  # fmt: skip
    return 0


def _assembled(options: argparse.Namespace) -> Any:
    from evaluation.brain import fmri, importers
    from evaluation.brain.data import BrainData, Card, same_people
    from evaluation.brain.images import stimuli_of

    if options.stimuli is None:
        raise UserError("--stimuli is missing: scoring shows the images to networks")
    if not any((options.rdms, options.responses, options.bids, options.epochs)):
        raise UserError("give --rdms, --responses, --bids or --epochs")
    stimuli, names, labels = stimuli_of(options.stimuli, options.labels)
    rdms = {
        r: importers.rdm_vectors(importers.array(f, k), str(f)) for r, (f, k) in _pairs(options.rdms, "--rdms").items()
    }
    responses = {
        r: importers.responses(importers.array(f, k), str(f))
        for r, (f, k) in _pairs(options.responses, "--responses").items()
    }
    people = same_people(rdms) | same_people(responses)
    if options.bids:
        masks = {r: f for r, (f, _) in _pairs(options.masks, "--masks").items()}
        if not masks:
            raise UserError("--bids needs --masks ROI=FILE …")
        scans = fmri.bids_scans(options.bids)
        responses |= fmri.glm_responses(scans, masks, names, repetition_time=options.tr)
        people |= dict.fromkeys(masks, tuple(sorted({s.subject for s in scans})))
    movie = times = None
    if options.epochs:
        codes = importers.event_names(options.event_names) if options.event_names else {}
        movie, times = importers.epochs_movie(options.epochs, codes, names, bin_ms=options.bin_ms)
    found = list(dict.fromkeys([*rdms, *responses]))
    rois = options.rois or found
    num = [*map(len, rdms.values()), *map(len, responses.values()), *([] if movie is None else [len(movie)])]
    card = Card(
        name=options.name or options.folder.resolve().name,
        modality=options.modality or ("fmri" if options.bids else "meg" if options.epochs else "mixed"),
        rois=tuple(rois),
        beside=tuple(r for r in found if r not in rois),
        subjects=max(num),
        citation=options.citation or "not given",
        licence=options.licence or "not given",
    )
    return BrainData(card, stimuli, names, labels, rdms, responses, movie, times, people=people)
