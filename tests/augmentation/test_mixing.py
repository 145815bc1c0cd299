from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tf_image_classification.augmentation import mixing
from tf_image_classification.flags import Flags

IMAGES = tf.constant(np.random.default_rng(0).normal(0, 50, (5, 20, 30, 3)).astype("float32"))
LABELS = {"kind": tf.eye(5), "age": tf.constant([10.0, 20.0, 30.0, 40.0, 50.0])}


def seed(number: int) -> tf.Tensor:
    return tf.constant([3, number], tf.int64)


def mixer(mixup: float = 0.0, cutmix: float = 0.0) -> mixing.MixFn:
    mix_fn = mixing.mixer(Flags(mixup=mixup, cutmix=cutmix))
    assert mix_fn is not None
    return mix_fn


def test_at_0_batches_stay_as_they_are():
    assert mixing.mixer(Flags(mixup=0.0, cutmix=0.0)) is None


def test_mixup_blends_each_image_and_its_labels_with_the_one_before_it():
    for number in range(10):
        images, labels = mixer(mixup=1.0)(IMAGES, LABELS, seed(number))
        share = float(labels["kind"][2, 2])
        assert 0.0 <= share <= 1.0
        np.testing.assert_allclose(images[2], share * IMAGES[2] + (1 - share) * IMAGES[1], atol=1e-3)
        np.testing.assert_allclose(images[0], share * IMAGES[0] + (1 - share) * IMAGES[4], atol=1e-3)
        np.testing.assert_allclose(
            labels["kind"], share * np.eye(5) + (1 - share) * np.roll(np.eye(5), 1, 0), atol=1e-6
        )
        np.testing.assert_allclose(labels["age"][2], share * 30 + (1 - share) * 20, atol=1e-3)


def test_cutmix_labels_have_the_share_of_pixels_of_one_rectangle():
    shares = []
    for number in range(60):
        images, labels = mixer(cutmix=1.0)(IMAGES, LABELS, seed(number))
        replaced = (images[2] != IMAGES[2]).numpy().all(-1)
        assert np.array_equal(images[2].numpy()[replaced], IMAGES[1].numpy()[replaced])
        rows, columns = np.nonzero(replaced.any(1))[0], np.nonzero(replaced.any(0))[0]
        assert replaced.sum() == len(rows) * len(columns)
        share = 1 - replaced.mean()
        np.testing.assert_allclose(labels["kind"][2], [0, 1 - share, share, 0, 0], atol=1e-6)
        np.testing.assert_allclose(labels["age"][2], share * 30 + (1 - share) * 20, atol=1e-3)
        shares.append(share)
    assert min(shares) < 0.3 and max(shares) > 0.9


def test_an_example_without_a_label_stays_a_partial_one():
    labels = {"kind": tf.constant([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])}
    _, mixed = mixer(mixup=1.0)(IMAGES[:3], labels, seed(0))
    share = float(mixed["kind"][2, 1])
    np.testing.assert_allclose(mixed["kind"], [[share, 1 - share], [1 - share, 0], [0, share]], atol=1e-6)


def test_with_both_each_batch_gets_one_of_the_two_as_often():
    def is_cutmix(number: int) -> bool:
        images, _ = mixer(mixup=1.0, cutmix=1.0)(IMAGES, LABELS, seed(number))
        return bool(np.isin(images[2], tf.stack(IMAGES[1:3])).all())

    assert 70 < sum(map(is_cutmix, range(200))) < 130


def test_the_same_seed_mixes_the_same_way_in_a_graph_and_another_one_differently():
    mix_fn = mixer(mixup=0.4, cutmix=1.0)
    compiled = tf.function(lambda number: mix_fn(IMAGES, LABELS, tf.stack([tf.constant(3, tf.int64), number])))
    results = [compiled(tf.constant(number, tf.int64))[0].numpy() for number in range(6)]
    assert len({result.tobytes() for result in results}) == 6
    for number, result in enumerate(results):
        np.testing.assert_allclose(result, mix_fn(IMAGES, LABELS, seed(number))[0], atol=1e-4)


@pytest.mark.parametrize("alpha", [0.001, 0.2, 1.0, 5.0, 1000.0])
def test_shares_are_beta_distributed_and_finite_for_every_alpha(alpha):
    draw = tf.function(lambda number: mixing._beta(alpha, tf.stack([tf.constant(5, tf.int64), number])))
    shares = np.array([draw(tf.constant(number, tf.int64)) for number in range(1500)])
    assert np.isfinite(shares).all() and shares.min() >= 0.0 and shares.max() <= 1.0
    assert abs(shares.mean() - 0.5) < 0.05
    np.testing.assert_allclose(shares.var(), 0.25 / (2 * alpha + 1), rtol=0.12)
