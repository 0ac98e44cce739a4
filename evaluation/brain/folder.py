"""The bring-your-own format: a folder with a card, the images, and rsatoolbox HDF5 files.

    brain.yaml            the card: name, modality, rois (lowest first), subjects, citation, licence, and optionally
                          beside, distances (mm), simulated, notes
    stimuli/              the images in the order of their file names (sRGB; any format that Pillow reads), or
    stimuli.npy           sRGB (N, H, W) or (N, H, W, 3), uint8 or 0…1
    stimuli.csv           one line per image in that order: column `stimulus` (name), every other column a label
    rdms*.h5              rsatoolbox RDMs; rdm_descriptors `subject` and `roi`; pattern_descriptors `stimulus`
    responses*.h5         rsatoolbox Dataset, one per subject: descriptors `subject`, obs_descriptors `stimulus`
                          (repetitions are averaged), channel_descriptors `roi`
    movie*.h5             rsatoolbox RDMs over time; rdm_descriptors `subject` and `time` (s)
    timecourse*.h5        rsatoolbox TemporalDataset, one per subject; obs_descriptors `stimulus`, time_descriptors
                          `time` (s)
    cortex/lh.annot, rh.annot   FreeSurfer annotations of fsaverage5 (or fsaverage) that name regions as the card does,
                          for the picture of the cortex; without them it shows approximate patches and says so

Whatever the order inside a file, entries are matched by stimulus name. Entries whose `subject` is the same are of one
person, whatever the file or the region: the bootstrap over subjects draws people, not entries.
"""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.brain.cortex import unreadable
from evaluation.brain.data import BrainData, Broken, Card, problems
from evaluation.brain.hdf5 import read_datasets, read_rdms
from evaluation.brain.images import SUFFIXES, from_array, from_files, read_table

REQUIRED = ("name", "modality", "rois", "subjects", "citation", "licence")


def read(folder: Path) -> BrainData:
    """Return the data in a folder, checked.

    Raises:
        Broken: Everything that is wrong with it.
    """
    card = read_card(folder)
    names, labels = _table(folder)
    stimuli = _images(folder, names)
    if len(names) != len(stimuli):
        raise Broken([f"stimuli.csv: {len(names)} lines for {len(stimuli)} images"])
    rdms, movie, times, people = read_rdms(folder, names)
    responses, course, others = read_datasets(folder, names)
    if movie is None and course is not None:
        movie, times = course
    both = [r for r in rdms if r in responses and people[r] != others[r]]
    if both:
        raise Broken([f"{r}: RDMs of {', '.join(people[r])}, responses of {', '.join(others[r])}" for r in both])
    cortex = folder / "cortex" if (folder / "cortex").is_dir() else None
    data = BrainData(card, stimuli, names, labels, rdms, responses, movie, times, people=others | people, cortex=cortex)
    found = problems(data) + unreadable(cortex)
    if card.subjects not in (num := num_subjects(data)):
        found.append(f"brain.yaml: subjects: {card.subjects}, but there are data of {num[0]}")
    if found:
        raise Broken(found)
    return data


def num_subjects(data: BrainData) -> tuple[int, int]:
    """Return the largest number of subjects in the hierarchy and the time course, and in any target."""
    many = {n: len(v) for n, v in data.names_of_people.items()}
    movie = 0 if data.movie is None else len(data.movie)
    every = max([movie, *many.values()])
    return max([movie, *(m for n, m in many.items() if n in data.card.rois)]) or every, every


def read_card(folder: Path) -> Card:
    """Return the card of a folder.

    Raises:
        Broken: If it is not there, or a key is missing, unknown or of the wrong kind.
    """
    import yaml

    path = folder / "brain.yaml"
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Broken([f"{path}: not there; every brain data set has a card"]) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Broken([f"{path}: cannot be read ({' '.join(str(error).split())})"]) from error
    if not isinstance(record, dict):
        raise Broken([f"{path}: expected keys and values"])
    known = {f.name for f in dataclasses.fields(Card)}
    found = [f"brain.yaml: {k} is missing" for k in REQUIRED if k not in record]
    found += [f"brain.yaml: unknown key {k!r}; known: {', '.join(sorted(known))}" for k in record if k not in known]
    for key in ("rois", "beside", "distances"):
        if not isinstance(record.get(key, []), list):
            found.append(f"brain.yaml: {key} must be a list")
    if not isinstance(record.get("subjects", 1), int) or isinstance(record.get("subjects", 1), bool):
        found.append("brain.yaml: subjects must be a whole number")
    if not isinstance(record.get("simulated", False), bool):
        found.append("brain.yaml: simulated must be true or false")
    if found:
        raise Broken(found)
    try:
        distances = tuple(float(d) for d in record.get("distances", []))
    except (TypeError, ValueError) as error:
        raise Broken([f"brain.yaml: distances must be numbers ({error})"]) from error
    return Card(
        name=str(record["name"]),
        modality=str(record["modality"]),
        rois=tuple(str(r) for r in record["rois"]),
        subjects=record["subjects"],
        citation=str(record["citation"]),
        licence=str(record["licence"]),
        beside=tuple(str(r) for r in record.get("beside", [])),
        distances=distances,
        simulated=record.get("simulated", False),
        notes=str(record.get("notes", "")),
    )


def write(data: BrainData, folder: Path) -> None:
    """Write a data set as a folder.

    Raises:
        Broken: If it could not be read back.
        FileExistsError: If the folder holds a card already.
    """
    import yaml
    from rsatoolbox.data.dataset import Dataset
    from rsatoolbox.rdm.rdms import RDMs

    if found := problems(data):
        raise Broken(found)
    if (folder / "brain.yaml").exists():
        raise FileExistsError(f"{folder} holds a brain data set already; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    srgb = _to_srgb(data.stimuli)
    np.save(folder / "stimuli.npy", srgb)
    with (folder / "stimuli.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["stimulus", *data.labels])
        writer.writerows([n, *(v[i] for v in data.labels.values())] for i, n in enumerate(data.names))
    names = {"stimulus": list(data.names)}
    people = data.names_of_people
    if data.rdms:
        who = [(roi, s) for roi in data.rdms for s in people[roi]]
        described = {"roi": [r for r, _ in who], "subject": [s for _, s in who]}
        stacked = np.concatenate(list(data.rdms.values()))
        _save(RDMs(stacked, rdm_descriptors=described, pattern_descriptors=names), folder / "rdms.h5")
    if data.movie is not None and data.times is not None:
        num, many = data.movie.shape[:2]
        described = {
            "subject": [f"{s:02d}" for s in range(num) for _ in range(many)],
            "time": np.tile(data.times / 1000, num).tolist(),
        }
        flat = data.movie.reshape(num * many, -1)
        _save(RDMs(flat, rdm_descriptors=described, pattern_descriptors=names), folder / "movie.h5")
    everyone = dict.fromkeys(s for roi in data.responses for s in people[roi])
    for number, subject in enumerate(everyone):
        own = {roi: v[people[roi].index(subject)] for roi, v in data.responses.items() if subject in people[roi]}
        channel = {"roi": [roi for roi, r in own.items() for _ in range(r.shape[1])]}
        dataset = Dataset(
            np.concatenate(list(own.values()), 1),
            descriptors={"subject": subject},
            obs_descriptors=names,
            channel_descriptors=channel,
        )
        _save(dataset, folder / f"responses_{number:02d}.h5")
    card, counts = data.card, num_subjects(data)
    if card.subjects not in counts:  # of a known set, only some are on this machine
        card = dataclasses.replace(card, subjects=counts[0])
    record = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(card).items()}
    (folder / "brain.yaml").write_text(yaml.safe_dump(record, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _save(thing: Any, path: Path) -> None:
    thing.save(str(path), file_type="hdf5", overwrite=True)


def _to_srgb(stimuli: Tensor) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return the images encoded for the screen, as uint8 where nothing is lost by it."""
    from training.data.base import to_srgb

    x = to_srgb(stimuli).clamp(0, 1)
    x = x[:, 0] if x.shape[1] == 1 else x.permute(0, 2, 3, 1)
    levels = (x * 255).round()
    if bool(((x * 255 - levels).abs() < 1e-2).all()):
        return levels.to(torch.uint8).numpy()
    return x.float().numpy()


def _table(folder: Path) -> tuple[tuple[str, ...], dict[str, NDArray[np.int64]]]:
    path = folder / "stimuli.csv"
    if path.exists():
        return read_table(path)
    files = _image_files(folder)
    if not files:
        raise Broken(["stimuli.csv: not there, and no folder of images to take names from"])
    return tuple(f.stem for f in files), {}


def _image_files(folder: Path) -> list[Path]:
    where = folder / "stimuli"
    return sorted(p for p in where.glob("*") if p.suffix.lower() in SUFFIXES) if where.is_dir() else []


def _images(folder: Path, names: Sequence[str]) -> Tensor:
    path = folder / "stimuli.npy"
    if path.exists():
        return from_array(path)
    files = _image_files(folder)
    if not files:
        raise Broken(["stimuli: neither stimuli.npy nor a folder of images"])
    return from_files(files, names)
