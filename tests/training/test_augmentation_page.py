"""augmentation.html: what a person sees of the augmentation before a training is over."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.test_own_estimator import Counting, changed
from tests.training.support import train
from tf_image_classification import build_tfrecords, built_in_estimator, preprocessing
from tf_image_classification.training import augmentation_page

EVIL = "<script>alert(1)<_script>"


def render(data, flags, spec=None) -> str:
    spec = spec or built_in_estimator.BuiltInEstimator()
    spec.flags = flags
    spec.set_default_class_dict(data.tasks)
    return augmentation_page.render(spec, data, 7)


def pictures(page: str, alt: str) -> list[np.ndarray]:
    """The page's images whose alternative text begins so."""
    found = re.findall(rf'alt="{alt}[^"]*" src="data:image/jpeg;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(jpeg))), "float32") for jpeg in found]


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """A data set of pictures of one colour each, of classes with hostile names."""
    root = tmp_path_factory.mktemp("squares")
    for name, colour in ((EVIL, (200, 40, 90)), ("Ünïcödé & more", (30, 120, 220))):
        (root / name).mkdir()
        for number in range(10):
            Image.new("RGB", (40, 30), colour).save(root / name / f"{number}.png")
    return build_tfrecords.build(str(root), str(root.parent / "squares_data"), eval_fraction=0.2, workers=1)


def test_class_names_are_escaped_and_the_page_needs_nothing_from_elsewhere(squares, training_flags):
    page = render(squares, training_flags(mixup=0.2))
    assert EVIL not in page
    assert "&lt;script&gt;" in page and "Ünïcödé &amp; more" in page
    assert not re.search(r"https?://|<script|<link|src=\"(?!data:)|url\(", page)


def test_images_of_all_classes_are_beside_six_variants_and_mixed_ones_name_their_shares(squares, training_flags):
    page = render(squares, training_flags(augmentation="light", mixup=0.2))
    assert len(pictures(page, "An image of")) == 8
    assert len(pictures(page, "The image, augmented")) == 8 * 6
    assert page.count("<h3>Ünïcödé &amp; more</h3>") == 4
    assert len(pictures(page, "Mixed: ")) == 3 * 8
    assert re.search(r"<figcaption>\d+% .* \+ \d+% ", page)
    assert "Mixed" not in render(squares, training_flags())


@pytest.mark.parametrize("augmentation", ["light", "none"])
@pytest.mark.parametrize("model_name", ["inception_v1", "vgg_16", "small"])
def test_the_variants_have_the_colours_of_the_image_whatever_the_normalisation(
    squares, training_flags, model_name, augmentation
):
    flags = training_flags(model_name=model_name, image_size=224, augmentation=augmentation)
    colours = {
        tuple(np.round(image.mean((0, 1)) / 10).astype(int)) for image in pictures(render(squares, flags), "The")
    }
    assert colours == {(20, 4, 9), (3, 12, 22)}


def test_a_normalisation_with_swapped_channels_is_undone_and_one_of_the_whole_image_is_said_to_be_stretched(
    squares, training_flags
):
    def swapped(image, width, height):
        return preprocessing.resize(image, width, height)[..., ::-1] / 127.5 - 1.0

    def standardised(image, width, height):
        return tf.image.per_image_standardization(tf.image.resize(image, (height, width)))

    page = render(squares, training_flags(), changed(get_preproc_fn=lambda self, is_training: swapped))
    assert {tuple(np.round(image.mean((0, 1)) / 10).astype(int)) for image in pictures(page, "The")} == {
        (20, 4, 9),
        (3, 12, 22),
    }
    assert "cannot be undone" not in page
    page = render(squares, training_flags(), changed(get_preproc_fn=lambda self, is_training: standardised))
    assert "cannot be undone" in page


def test_large_images_are_shown_small(squares, training_flags):
    page = render(squares, training_flags(image_size=600, augmentation="light"))
    assert {image.shape for image in pictures(page, "The")} == {(224, 224, 3)}
    assert "600 \N{MULTIPLICATION SIGN} 600 pixels" in page


def test_a_training_leaves_the_page_in_its_folder_and_says_where(built_data, training_flags, caplog):
    caplog.set_level("INFO")
    outcome = train(built_data, training_flags(train_steps=1, augmentation="trivialaugment"))
    path = Path(outcome.model_dir, "augmentation.html")
    assert "trivialaugment: a random crop and flip, then one of 14" in path.read_text()
    assert f"Augmented samples: {path}" in caplog.text


def test_a_spec_that_reads_batches_of_its_own_has_a_page_that_says_so(built_data, training_flags):
    own = changed(input_fn=lambda self, data, **options: Counting.input_fn(self, data, **options))
    assert "reads batches of its own" in render(built_data, training_flags(), own)
