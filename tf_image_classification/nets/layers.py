"""Keras layers that compute what slim's compute, named by slim's scopes.

A layer is called `InceptionV3.Mixed_5b.Branch_0` where slim's scope is `InceptionV3/Mixed_5b/Branch_0`: Keras allows no
'/' in a layer's name. `names.scoped_names` turns these names into slim's names of variables.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import keras
import tensorflow as tf

Tensor: TypeAlias = Any  # a keras.KerasTensor; keras has no type stubs
Kernel: TypeAlias = int | tuple[int, int]


class Norm(NamedTuple):
    """Arguments of a network's slim.batch_norm layers.

    Attributes:
        decay: share of the old value in each update of the moving statistics.
        epsilon: added to the variance.
        scale: whether there is a gamma.
    """

    decay: float
    epsilon: float
    scale: bool


class Conv(NamedTuple):
    """A convolution in a branch.

    Attributes:
        name: scope within the branch.
        filters: number of output channels.
        stride: of both axes, in pixels.
        padding: 'same' or 'valid'.
        kernel: height and width in pixels; None: read from the name (`Conv2d_0b_1x7`).
        initializer: of the kernel; None: the network's.
    """

    name: str
    filters: int
    stride: int = 1
    padding: str = "same"
    kernel: Kernel | None = None
    initializer: keras.initializers.Initializer | None = None


class Pool(NamedTuple):
    """A pooling in a branch; kind and size are read from the name (`MaxPool_1a_3x3`)."""

    name: str
    stride: int = 1
    padding: str = "same"


class Fork(NamedTuple):
    """Two convolutions of the same input, concatenated along the channels."""

    left: Conv
    right: Conv


Branch: TypeAlias = tuple[Conv | Pool | Fork, ...]


@keras.saving.register_keras_serializable(package="tf_image_classification")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation (arXiv:1502.03167) of [B, H, W, C] by TensorFlow's fused kernel, as slim.batch_norm.

    With mean m and variance v over the N = B*H*W values of a channel, training computes

        outputs = gamma * (inputs - m) / sqrt(v + epsilon) + beta
        moving_mean = decay * moving_mean + (1 - decay) * m
        moving_variance = decay * moving_variance + (1 - decay) * v * N / (N - 1)

    The last factor makes the variance unbiased, as algorithm 2 of the paper and the kernel's `batch_variance` output
    have it; Keras's own layer updates with the biased v. float16 inputs are normalised in float32.

    With `synchronized`, m and v are over the batches of all replicas, and so is N.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: None = None) -> tf.Tensor:
        gamma = tf.ones_like(self.beta) if self.gamma is None else self.gamma
        if not (training and self.trainable):
            outputs, _, _ = tf.compat.v1.nn.fused_batch_norm(
                inputs,
                gamma,
                self.beta,
                self.moving_mean,
                self.moving_variance,
                epsilon=self.epsilon,
                is_training=False,
            )
            return outputs
        if self.synchronized:
            outputs, mean, variance = self._over_replicas(inputs, gamma)
        else:
            outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                inputs, gamma, self.beta, epsilon=self.epsilon, is_training=True
            )
        self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1.0 - self.momentum))
        self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1.0 - self.momentum))
        return outputs

    def _over_replicas(self, inputs: tf.Tensor, gamma: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The outputs, the mean and the unbiased variance; one all-reduce."""
        context = tf.distribute.get_replica_context()
        values = tf.cast(inputs, tf.float32)
        own = tf.stack([tf.reduce_mean(power, axis=[0, 1, 2]) for power in (values, tf.square(values))])
        mean, square = tf.unstack(context.all_reduce(tf.distribute.ReduceOp.MEAN, own))
        variance = tf.maximum(square - tf.square(mean), 0.0)
        outputs = tf.nn.batch_normalization(values, mean, variance, self.beta, gamma, self.epsilon)
        count = tf.cast(tf.size(inputs) // inputs.shape[-1] * context.num_replicas_in_sync, tf.float32)
        return tf.cast(outputs, inputs.dtype), mean, variance * count / (count - 1.0)


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Adds a network's layers to a functional model: what slim keeps in an arg_scope and a variable_scope.

    Each method takes and returns a KerasTensor [B, H, W, C], and names its layers relative to `scope`.

    Attributes:
        scope: slim's scope that names are relative to, with '.' for '/'.
        weight_decay: L2 regularisation of convolution kernels; none when 0.
        norm: batch normalisation after each convolution; None: a bias instead.
        max_value: where the rectifier saturates; None: nowhere.
        initializer: of kernels.
        regularize_biases: whether biases are regularised like kernels.
    """

    scope: str
    weight_decay: float
    norm: Norm | None = None
    max_value: float | None = None
    initializer: keras.initializers.Initializer
    regularize_biases: bool = False

    def within(self, scope: str) -> Layers:
        """The same settings under a scope within this one."""
        return dataclasses.replace(self, scope=f"{self.scope}.{scope}")

    def conv(
        self,
        x: Tensor,
        name: str,
        filters: int,
        *,
        stride: int = 1,
        padding: str = "same",
        kernel: Kernel | None = None,
        norm: bool = True,
        relu: bool = True,
        initializer: keras.initializers.Initializer | None = None,
        dtype: str | None = None,
    ) -> Tensor:
        """Convolution, then batch normalisation (or, without one, a bias), then the rectifier."""
        normalised = norm and self.norm is not None
        convolution = keras.layers.Conv2D(
            filters,
            kernel or _size(name),
            stride,
            padding,
            use_bias=not normalised,
            kernel_initializer=_fresh(initializer or self.initializer),
            kernel_regularizer=self._l2(),
            bias_regularizer=self._l2() if self.regularize_biases else None,
            name=self._name(name),
            dtype=dtype,
        )
        return self._finish(convolution(x), name, normalised, relu)

    def depthwise(self, x: Tensor, name: str, *, stride: int = 1) -> Tensor:
        """3x3 depthwise convolution, batch normalisation, rectifier; slim does not regularise its kernel."""
        convolution = keras.layers.DepthwiseConv2D(
            3, stride, "same", use_bias=False, depthwise_initializer=_fresh(self.initializer), name=self._name(name)
        )
        return self._finish(convolution(x), name, True, True)

    def separable(
        self,
        x: Tensor,
        name: str,
        filters: int,
        *,
        stride: int,
        multiplier: int,
        initializer: keras.initializers.Initializer,
    ) -> Tensor:
        """Depthwise, then pointwise convolution with a bias and the rectifier; neither normalised nor regularised."""
        convolution = keras.layers.SeparableConv2D(
            filters,
            _size(name),
            stride,
            "same",
            depth_multiplier=multiplier,
            depthwise_initializer=_fresh(initializer),
            pointwise_initializer=_fresh(initializer),
            name=self._name(name),
        )
        return self._finish(convolution(x), name, False, True)

    def batch_norm(self, x: Tensor, name: str) -> Tensor:
        """Batch normalisation alone."""
        assert self.norm is not None
        return BatchNorm(
            momentum=self.norm.decay, epsilon=self.norm.epsilon, scale=self.norm.scale, name=self._name(name)
        )(x)

    def relu(self, x: Tensor, name: str) -> Tensor:
        """The network's rectifier, min(max(x, 0), max_value)."""
        return keras.layers.ReLU(self.max_value, name=self._name(name))(x)

    def pool(self, x: Tensor, name: str, stride: int, padding: str = "same", kernel: Kernel | None = None) -> Tensor:
        """Average or maximum pooling: a name that starts with `Avg` is an average; the size is read from the name's end
        unless `kernel` is given.

        As in TensorFlow's AvgPool kernel, padding does not count in an average.
        """
        layer = keras.layers.AveragePooling2D if name.startswith("Avg") else keras.layers.MaxPooling2D
        return layer(kernel or _size(name), stride, padding, name=self._name(name))(x)

    def add(self, x: Tensor, residual: Tensor, name: str = "add") -> Tensor:
        """Elementwise sum."""
        return keras.layers.Add(name=self._name(name))([x, residual])

    def mixed(self, x: Tensor, scope: str, *branches: Branch) -> Tensor:
        """An inception module: branches side by side under `Branch_0`, `Branch_1`, ..., concatenated."""
        module = self.within(scope)
        outputs = []
        for index, steps in enumerate(branches):
            branch, y = module.within(f"Branch_{index}"), x
            for step in steps:
                y = branch._step(y, step)
            outputs.append(y)
        return keras.layers.Concatenate(name=module._name("concat"))(outputs)

    def logits(self, x: Tensor, head: str, outputs: Mapping[str, int], dense: bool) -> Tensor | dict[str, Tensor]:
        """One linear layer per task, in float32.

        Args:
            x: features [B, 1, 1, C].
            head: scope of the layer; with several tasks the task's name is appended.
            outputs: task name -> number of logits K.
            dense: a Dense layer rather than a 1x1 convolution.

        Returns:
            [B, K], or with several tasks a dict of task name -> [B, K].
        """
        logits = {}
        for task, count in outputs.items():
            name = head if len(outputs) == 1 else f"{head}.{task}"
            if dense:
                layer = keras.layers.Dense(
                    count,
                    kernel_initializer=_fresh(self.initializer),
                    kernel_regularizer=self._l2(),
                    bias_regularizer=self._l2() if self.regularize_biases else None,
                    name=self._name(name),
                    dtype="float32",
                )
                logits[task] = layer(keras.layers.Flatten(name=self._name(f"{name}.flatten"))(x))
            else:
                y = self.conv(x, name, count, kernel=1, norm=False, relu=False, dtype="float32")
                logits[task] = keras.layers.Flatten(name=self._name(f"{name}.squeeze"), dtype="float32")(y)
        return logits if len(outputs) > 1 else next(iter(logits.values()))

    def _step(self, x: Tensor, step: Conv | Pool | Fork) -> Tensor:
        if isinstance(step, Pool):
            return self.pool(x, step.name, step.stride, step.padding)
        if isinstance(step, Fork):
            return keras.layers.Concatenate(name=self._name("fork"))(
                [self._step(x, step.left), self._step(x, step.right)]
            )
        return self.conv(
            x,
            step.name,
            step.filters,
            stride=step.stride,
            padding=step.padding,
            kernel=step.kernel,
            initializer=step.initializer,
        )

    def _finish(self, x: Tensor, name: str, normalised: bool, relu: bool) -> Tensor:
        if normalised:
            x = self.batch_norm(x, f"{name}.BatchNorm")
        return self.relu(x, f"{name}.Relu") if relu else x

    def _name(self, name: str) -> str:
        return f"{self.scope}.{name}"

    def _l2(self) -> keras.regularizers.Regularizer | None:
        # slim.l2_regularizer(w) adds w * tf.nn.l2_loss(kernel) = w * sum(kernel^2) / 2; Keras L2(w) w * sum(kernel^2).
        return keras.regularizers.L2(self.weight_decay / 2) if self.weight_decay else None


def _size(name: str) -> tuple[int, int]:
    match = re.search(r"_(\d)x(\d)$", name)
    assert match, name
    return int(match[1]), int(match[2])


def _fresh(initializer: keras.initializers.Initializer) -> keras.initializers.Initializer:
    # A Keras initializer without a seed draws one when it is created: used twice, it gives the same values twice.
    return initializer.clone()


def truncated_normal(stddev: float) -> keras.initializers.Initializer:
    """Normal with mean 0, redrawn outside of two standard deviations, as tf.truncated_normal_initializer."""
    return keras.initializers.TruncatedNormal(stddev=stddev)


def variance_scaling() -> keras.initializers.Initializer:
    """slim.variance_scaling_initializer() with its defaults: He's initialisation (arXiv:1502.01852), truncated."""
    return keras.initializers.VarianceScaling(2.0, "fan_in", "truncated_normal")
