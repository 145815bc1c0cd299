"""Keras layers with slim's arithmetic, named by slim's scopes with '.' for '/', which Keras does not allow in a
name."""

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
    """Batch normalisation of a net: decay of the moving statistics, epsilon, and whether there is a gamma."""

    decay: float
    epsilon: float
    scale: bool


class Conv(NamedTuple):
    """A convolution in a branch. The kernel is read from the name (`Conv2d_0b_1x7`) unless it is given."""

    name: str
    filters: int
    stride: int = 1
    padding: str = "same"
    kernel: Kernel | None = None
    initializer: keras.initializers.Initializer | None = None


class Pool(NamedTuple):
    """A pooling in a branch; the name says kind and size (`MaxPool_1a_3x3`)."""

    name: str
    stride: int = 1
    padding: str = "same"


class Fork(NamedTuple):
    """Convolutions of the same input side by side, concatenated."""

    left: Conv
    right: Conv


Branch: TypeAlias = tuple[Conv | Pool | Fork, ...]


@keras.saving.register_keras_serializable(package="tf_image_classification")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation of [B, H, W, C] by TensorFlow's fused kernel, as slim.batch_norm.

    The moving variance is updated with the unbiased variance of the batch, N / (N - 1) of the one it is normalised by,
    N = B*H*W; Keras's own layer takes the biased one. float16 inputs are normalised in float32.
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
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1.0 - self.momentum))
        self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1.0 - self.momentum))
        return outputs


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Makes a net's layers: what slim keeps in an arg_scope and a variable_scope.

    Attributes:
        scope: slim scope that names are relative to, with '.' for '/'.
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
        """The same under a scope below this one."""
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
        """The net's rectifier."""
        return keras.layers.ReLU(self.max_value, name=self._name(name))(x)

    def pool(self, x: Tensor, name: str, stride: int, padding: str = "same", kernel: Kernel | None = None) -> Tensor:
        """Pooling: the kind is the name's beginning, the size its end unless it is given. Padding never enters an
        average."""
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
        """One linear layer per task on features [B, 1, 1, C], in float32: [B, K], or task name -> [B, K] when there are
        several."""
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
        # slim.l2_regularizer(w) adds w * sum(kernel^2) / 2, keras L2(w) adds w * sum(kernel^2).
        return keras.regularizers.L2(self.weight_decay / 2) if self.weight_decay else None


def _size(name: str) -> tuple[int, int]:
    match = re.search(r"_(\d)x(\d)$", name)
    assert match, name
    return int(match[1]), int(match[2])


def _fresh(initializer: keras.initializers.Initializer) -> keras.initializers.Initializer:
    # A Keras initializer that is used twice gives the same values twice.
    return initializer.clone()


def truncated_normal(stddev: float) -> keras.initializers.Initializer:
    """Normal around 0, redrawn outside of two standard deviations."""
    return keras.initializers.TruncatedNormal(stddev=stddev)


def variance_scaling() -> keras.initializers.Initializer:
    """slim.variance_scaling_initializer() with its defaults, He's initialisation for rectifiers."""
    return keras.initializers.VarianceScaling(2.0, "fan_in", "truncated_normal")
