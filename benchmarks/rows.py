"""The rows of the table of `make bench`: what is measured, against what, and the ratio to reach."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks import photos
from benchmarks.timing import Measure, seconds


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        pairs: interleaved pairs of each row.
        photographs: at most.
        small_pictures: of 28 x 28 pixels, in a build.
        memory: numbers of small pictures whose peaks are compared.
        steps: of a training, in a measurement of the small network; a tenth of them of mobilenet_v2.
    """

    pairs: int
    photographs: int
    small_pictures: int
    memory: tuple[int, int]
    steps: int


FULL = Size(pairs=10, photographs=1200, small_pictures=20_000, memory=(5_000, 50_000), steps=150)
SMALL = Size(pairs=1, photographs=64, small_pictures=200, memory=(50, 500), steps=10)


@dataclass(frozen=True, slots=True)
class Material:
    """What all rows are measured with.

    Attributes:
        photographs: folder of JPEGs.
        folder: for what the rows write.
        size: how much is measured.
    """

    photographs: str
    folder: str
    size: Size

    def path(self, name: str) -> str:
        """A path in `folder`."""
        return os.path.join(self.folder, name)


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        name: what is measured.
        reference_name: what it is compared with.
        goal: ratio to reach.
        ours, reference: the two measurements.
        repeated: False for one that takes long and hardly varies: a single pair, without a warm-up.
    """

    name: str
    reference_name: str
    goal: float
    ours: Measure
    reference: Measure
    repeated: bool = True


def _build(material: Material) -> Iterator[Row]:
    from benchmarks import build

    images, folder = material.photographs, material.folder
    ours = seconds(build.ours(images, folder))
    yield Row("build", "Pillow, full decoding on all cores", 1.1, ours, seconds(build.pillow_decoding(images)))
    yield Row("build", "slim's converter loop, one process", 2.5, ours, seconds(build.slim_loop(images, folder)))
    pictures = photos.small_pictures(images, material.size.small_pictures, material.path("small"))
    yield Row(
        "build, PNGs of 28x28",
        "slim's converter loop, one process",
        3.0,
        seconds(build.ours(pictures, folder)),
        seconds(build.slim_loop(pictures, folder)),
    )


def _training_input(material: Material) -> Iterator[Row]:
    from benchmarks import training_input
    from tf_image_classification import build_tfrecords

    data = build_tfrecords.build(material.photographs, material.path("data"))
    steady, cold = functools.partial(training_input.steady_state, data=data), training_input.cold_epoch
    ours, slim = training_input.ours(data, 299), training_input.slim(data, 299)
    layers, decoding = training_input.keras_layers(material.photographs, 299), training_input.bare_decoding(data)
    name, slim_name, decoding_name = "input at 299 px", "slim's Inception preprocessing", "tf.io.decode_jpeg alone"
    yield Row(name, slim_name, 1.8, steady(ours), steady(slim))
    yield Row(name, decoding_name, 0.85, steady(ours), steady(decoding))
    yield Row(name, "image_dataset_from_directory and layers", 2.8, steady(ours), steady(layers))
    yield Row(f"{name}, cold epoch", slim_name, 1.6, cold(ours), cold(slim))
    yield Row(f"{name}, cold epoch", decoding_name, 0.75, cold(ours), cold(decoding))
    yield Row("input at 128 px", decoding_name, 1.15, steady(training_input.ours(data, 128)), steady(decoding))


def _training_step(material: Material) -> Iterator[Row]:
    from benchmarks import training_step

    folder, steps = material.folder, material.size.steps
    ours, bare = training_step.ours("small", 32, steps, folder), training_step.bare("small", 32, steps)
    yield Row("step of a small network", "bare tf.function loop", 0.98, seconds(ours), seconds(bare))
    ours, fit = training_step.ours("mobilenet_v2", 128, steps // 10, folder), training_step.keras_fit(128, steps // 10)
    yield Row("step of mobilenet_v2", "keras model.fit", 1.0, seconds(ours), seconds(fit))


def _evaluation(material: Material) -> Iterator[Row]:
    from benchmarks import evaluation
    from tf_image_classification import build_tfrecords

    data = build_tfrecords.build(material.photographs, material.path("evaluated"), eval_fraction=0.5)
    model = evaluation.model("mobilenet_v1", 96, data, material.folder)
    ours, bare = evaluation.ours_and_bare(data, model, material.folder)
    yield Row("evaluation", "bare loop of the SavedModel", 0.95, seconds(ours), seconds(bare))


def _memory(material: Material) -> Iterator[Row]:
    from benchmarks import evaluation, memory
    from tf_image_classification import build_tfrecords

    few, many = (
        photos.small_pictures(material.photographs, count, material.path(f"{count}-pictures"))
        for count in material.size.memory
    )
    data = [build_tfrecords.build(pictures, f"{pictures}-data", eval_metadata=pictures) for pictures in (few, many)]
    model = evaluation.model("small", 32, data[0], material.folder)
    of_builds = [memory.of_build(pictures, material.path("built")) for pictures in (few, many)]
    of_evaluations = [memory.of_evaluation(model, each.folder, material.path("evaluation")) for each in data]
    goal = 1 / 1.1
    against = f"{material.size.memory[0]:,} small pictures, not {material.size.memory[1]:,}"
    yield Row("memory of build", against, goal, of_builds[1], of_builds[0], repeated=False)
    yield Row("memory of evaluate", against, goal, of_evaluations[1], of_evaluations[0], repeated=False)


def _scaling(material: Material) -> Iterator[Row]:
    from benchmarks import scaling

    with scaling.two_and_one() as (ours, one):
        yield Row("two workers", "one worker, a core each", 1.7, seconds(ours), seconds(one))


# Name on the command line -> its rows.
ROWS: dict[str, Callable[[Material], Iterator[Row]]] = {
    "build": _build,
    "training_input": _training_input,
    "training_step": _training_step,
    "evaluation": _evaluation,
    "memory": _memory,
    "scaling": _scaling,
}
