"""The rows of the table of `make bench`: what is measured, against what, and the ratio to reach."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks import beam, photos
from benchmarks.timing import Measure, seconds


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        rounds: measurements of ours and each yardstick, in turn.
        photographs: at most.
        built: photographs of a build, at most.
        phone_pictures: their number, of which 32 or more are trained on; width and height.
        small_pictures: of 28 x 28 pixels, in a build.
        memory: numbers of small pictures whose peaks are compared.
        steps: of a training, in a measurement of the small network and of mobilenet_v2.
    """

    rounds: int
    photographs: int
    built: int
    phone_pictures: tuple[int, tuple[int, int]]
    small_pictures: int
    memory: tuple[int, int]
    steps: tuple[int, int]


FULL = Size(
    rounds=10,
    photographs=1200,
    built=2400,
    phone_pictures=(68, (4000, 3000)),
    small_pictures=20_000,
    memory=(5_000, 50_000),
    steps=(150, 10),
)
SMALL = Size(
    rounds=1,
    photographs=64,
    built=64,
    phone_pictures=(36, (800, 600)),
    small_pictures=200,
    memory=(50, 500),
    steps=(10, 1),
)


@dataclass(frozen=True, slots=True)
class Material:
    """What all rows are measured with.

    Attributes:
        photographs: folder of JPEGs.
        folder: for what the rows write.
        size: how much is measured.
        images: the user's folder of photographs; None: there is none.
        beam_python: interpreter with Apache Beam.
    """

    photographs: str
    folder: str
    size: Size
    images: str | None = None
    beam_python: str = beam.DEFAULT_PYTHON

    def path(self, name: str) -> str:
        """A path in `folder`."""
        return os.path.join(self.folder, name)


class Reference(NamedTuple):
    """What a row is compared with.

    Attributes:
        name: of the yardstick.
        goal: ratio to reach; None: there is none.
        measure: its cost.
    """

    name: str
    goal: float | None
    measure: Measure


class Row(NamedTuple):
    """A row of the table for each of its references, which are measured in the same rounds.

    Attributes:
        name: what is measured.
        ours: its cost.
        references: what it is compared with.
        repeated: False for one that takes long and hardly varies: a single round, without a warm-up.
    """

    name: str
    ours: Measure
    references: list[Reference]
    repeated: bool = True


class Together(NamedTuple):
    """Rows that are measured in the same rounds: a cost that several of them have, once for all."""

    rows: list[Row]


class LeftOut(NamedTuple):
    """A row that cannot be measured here.

    Attributes:
        name, reference_name, goal: as in Row and Reference.
        why: what is missing.
    """

    name: str
    reference_name: str
    goal: float
    why: str


def _build(material: Material) -> Iterator[Row | Together | LeftOut]:
    from benchmarks import build

    folder = material.folder
    images = photos.photographs(material.images, material.size.built, material.path("images"))
    ours = seconds(build.ours(images, folder))
    pillow, slim = seconds(build.pillow_decoding(images)), seconds(build.slim_loop(images, folder))
    slim_name = "slim's converter loop, one process"
    references = [Reference("Pillow, full decoding on all cores", 1.1, pillow), Reference(slim_name, 2.5, slim)]
    yield Row("build", ours, references)
    beam_name, beam_goal = "Apache Beam's DirectRunner", 4.0
    if why := beam.missing(material.beam_python):
        yield LeftOut("build", beam_name, beam_goal, why)
    else:
        with beam.direct_runner(material.beam_python, images, material.path("built-on-beam")) as work:
            yield Row("build", ours, [Reference(beam_name, beam_goal, seconds(work))])
    pictures = photos.small_pictures(images, material.size.small_pictures, material.path("small"))
    slim = seconds(build.slim_loop(pictures, folder))
    yield Row("build, PNGs of 28x28", seconds(build.ours(pictures, folder)), [Reference(slim_name, 3.0, slim)])


def _training_input(material: Material) -> Iterator[Together]:
    from benchmarks import training_input
    from tf_image_classification import build_tfrecords

    data = build_tfrecords.build(material.photographs, material.path("data"))
    steady, cold = (
        functools.partial(measure, data=data) for measure in (training_input.steady_state, training_input.cold_epoch)
    )
    slim, decoding = training_input.slim(data, 299), training_input.bare_decoding(data)
    layers = training_input.keras_layers(material.photographs, 299)
    bare = steady(decoding)
    slim_name, decoding_name = "slim's Inception preprocessing", "tf.io.decode_jpeg alone"
    steady_references = [
        Reference(slim_name, 1.8, steady(slim)),
        Reference(decoding_name, 0.85, bare),
        Reference("image_dataset_from_directory and layers", 2.8, steady(layers)),
    ]
    cold_references = [Reference(slim_name, 1.6, cold(slim)), Reference(decoding_name, 0.75, cold(decoding))]
    small_references = [Reference(decoding_name, 1.15, bare)]

    def rows(name: str, size: int, measure: Callable[..., Measure], references: list[Reference]) -> list[Row]:
        leaving, finished = (training_input.ours(data, size, finished=finished) for finished in (False, True))
        on_host = f"input at {size} px, finished on the host{name}"
        return [
            Row(f"input at {size} px{name}", measure(leaving), references),
            Row(on_host, measure(finished), references),
        ]

    yield Together(rows("", 299, steady, steady_references) + rows("", 128, steady, small_references))
    yield Together(rows(", cold epoch", 299, cold, cold_references))


def _phone_pictures(material: Material) -> Iterator[Row]:
    from benchmarks import training_input
    from tf_image_classification import build_tfrecords
    from tf_image_classification.data.sources import ReadOptions

    pictures = photos.phone_pictures(material.photographs, *material.size.phone_pictures, material.path("phone"))
    measured = []
    for side in (512, 0):
        options = ReadOptions(max_side=side)
        data = build_tfrecords.build(pictures, f"{pictures}-{side}", eval_fraction=0.05, options=options)
        ours = training_input.ours(data, 299, finished=False)
        measured.append(training_input.steady_state(ours, data, epochs=3))
    yield Row("phone pictures, 299 px", measured[0], [Reference("built without --max_side 512", 10.0, measured[1])])


def _training_step(material: Material) -> Iterator[Row]:
    from benchmarks import training_step

    folder, (of_small, of_mobilenet) = material.folder, material.size.steps
    ours, bare = training_step.ours("small", 32, of_small, folder), training_step.bare("small", 32, of_small)
    yield Row("step of a small network", seconds(ours), [Reference("bare tf.function loop", 0.98, seconds(bare))])
    ours = training_step.ours("mobilenet_v2", 128, of_mobilenet, folder)
    fit = training_step.keras_fit(128, of_mobilenet)
    yield Row("step of mobilenet_v2", seconds(ours), [Reference("keras model.fit", 1.0, seconds(fit))])


def _evaluation(material: Material) -> Iterator[Row]:
    from benchmarks import evaluation
    from tf_image_classification import build_tfrecords

    data = build_tfrecords.build(material.photographs, material.path("evaluated"), eval_fraction=0.5)
    model = evaluation.model("mobilenet_v1", 96, data, material.folder)
    ours, bare = evaluation.ours_and_bare(data, model, material.folder)
    yield Row("evaluation", seconds(ours), [Reference("bare loop of the SavedModel", 0.95, seconds(bare))])


def _memory(material: Material) -> Iterator[Row]:
    from benchmarks import evaluation, memory
    from tf_image_classification.data import manifest

    few, many = (
        photos.small_pictures(material.photographs, count, material.path(f"{count}-pictures"))
        for count in material.size.memory
    )
    against = f"{material.size.memory[0]:,} small pictures, not {material.size.memory[1]:,}"
    goal = 1 / 1.1
    of_few, of_many = (memory.of_build(pictures, f"{pictures}-data") for pictures in (few, many))
    yield Row("memory of build", of_many, [Reference(against, goal, of_few)], repeated=False)
    model = evaluation.model("small", 32, manifest.read(f"{few}-data"), material.folder)
    of_few, of_many = (
        memory.of_evaluation(model, f"{pictures}-data", material.path("evaluation")) for pictures in (few, many)
    )
    yield Row("memory of evaluate", of_many, [Reference(against, goal, of_few)], repeated=False)


def _scaling(material: Material) -> Iterator[Row]:
    from benchmarks import scaling

    with scaling.two_and_one() as (ours, one):
        yield Row("two workers", seconds(ours), [Reference("one worker, a core each", 1.7, seconds(one))])


# Name on the command line -> its rows.
ROWS: dict[str, Callable[[Material], Iterator[Row | Together | LeftOut]]] = {
    "build": _build,
    "training_input": _training_input,
    "phone_pictures": _phone_pictures,
    "training_step": _training_step,
    "evaluation": _evaluation,
    "memory": _memory,
    "scaling": _scaling,
}
