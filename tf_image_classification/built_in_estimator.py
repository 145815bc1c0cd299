"""The estimator of the built-in networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tf_image_classification.estimator_specs import EstimatorSpec, ModelFn, Tensors

if TYPE_CHECKING:
    from tf_image_classification.augmentation.policies import PixelsFn
    from tf_image_classification.preprocessing import Crop, DecodeFn, Preprocessing, PreprocFn
    from tf_image_classification.preprocessing_parts import NormalizeFn


class BuiltInEstimator(EstimatorSpec):
    """The network that --model_name names, with the preprocessing that its pretrained weights expect.

    Metrics: `accuracy` of a classification, `mean_absolute_error` of a regression; with several tasks
    `accuracy/<task>` and `mean_absolute_error/<task>`.
    """

    def get_preproc_fn(self, is_training: bool) -> PreprocFn:
        return self._preprocessing.train_fn if is_training else self._preprocessing.eval_fn

    def get_decode_fn(self, is_training: bool) -> DecodeFn:
        from tf_image_classification import preprocessing
        from tf_image_classification.augmentation import ORIGINAL

        return preprocessing.Decoder(self.training_crop(ORIGINAL) if is_training else None)

    def get_normalize_fn(self) -> NormalizeFn:
        if type(self).get_preproc_fn is not BuiltInEstimator.get_preproc_fn:  # a subclass with pixels of its own
            return super().get_normalize_fn()
        return self._preprocessing.normalize_fn

    def _normalized(self, pixels_fn: PixelsFn) -> PreprocFn:
        from tf_image_classification import preprocessing_parts

        normalize_fn = self.get_normalize_fn()
        if normalize_fn is not self._preprocessing.normalize_fn:  # a subclass's own, which takes one image
            return super()._normalized(pixels_fn)
        return preprocessing_parts.normalized(pixels_fn, normalize_fn)

    def training_crop(self, augmentation: str) -> Crop | None:
        from tf_image_classification.augmentation import ORIGINAL, crop_with

        if augmentation != ORIGINAL:
            return super().training_crop(augmentation)
        crop = self._preprocessing.crop
        if crop is None or type(self).get_decode_fn is not BuiltInEstimator.get_decode_fn:
            return None
        return crop_with(crop, self.flags)

    def get_model_fn(self, checkpoint_path: str | None) -> ModelFn:
        from tf_image_classification import nets

        del checkpoint_path
        return lambda params: nets.build(
            params.model_name, image_size=params.image_size, outputs=params.outputs, weight_decay=params.weight_decay
        )

    def metric_ops(self, labels: Tensors, predictions: dict[str, Tensors]) -> dict[str, Any]:
        import tensorflow as tf

        metrics = {}
        for entry in self.class_dict:
            name = entry["name"]
            suffix = "" if len(self.class_dict) == 1 else f"/{name}"
            if entry["one-hot"]:
                right = tf.equal(tf.argmax(labels[name], axis=-1), predictions[name]["class_id"])
                metrics[f"accuracy{suffix}"] = tf.cast(right, tf.float32)
            else:
                predicted = tf.reshape(predictions[name]["logits"], [-1])
                metrics[f"mean_absolute_error{suffix}"] = tf.abs(predicted - labels[name])
        return metrics

    @property
    def _preprocessing(self) -> Preprocessing:
        from tf_image_classification import nets, preprocessing

        return preprocessing.PREPROCESSINGS[nets.NETS[self.flags.model_name].preprocessing]
