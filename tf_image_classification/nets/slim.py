"""What a built-in network is: slim's facts about it, and its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras

from tf_image_classification import flags
from tf_image_classification.nets.layers import Layers, Norm, Tensor


@dataclass(frozen=True, kw_only=True)
class Net:
    """A network.

    Attributes:
        name: the value of --model_name.
        scope: slim's variable scope, the first part of every variable's name.
        default_size: height and width in pixels that the released weights were trained for.
        preprocessing: what the pixels become: 'inception' [-1, 1]; 'vgg' RGB minus its mean; 'unit' [-1, 1], resized
            only.
        head: slim's scope of the logits, relative to `scope`.
        aux: scope of an auxiliary head that slim's checkpoints hold and that is not built here.
        dropout: share of the features that training drops before the logits.
        params: number of values in all variables, with slim's own number of classes.
        body: layers and images float32 [B, H, W, 3] -> features [B, h, w, C].
    """

    name: str
    scope: str
    default_size: int
    preprocessing: str
    head: str
    aux: str = ""
    dense_head: bool = False
    dropout: float = 0.0
    params: int
    norm: Norm | None
    max_value: float | None = None
    initializer: Callable[[], keras.initializers.Initializer]
    regularize_biases: bool = False
    body: Callable[[Layers, Tensor], Tensor]

    @property
    def min_size(self) -> int:
        """The least height and width in pixels that reach the logits."""
        return flags.MIN_IMAGE_SIZE[self.name]

    @property
    def head_scopes(self) -> tuple[str, ...]:
        """What a fine-tuning with other classes leaves out of a checkpoint: values of --checkpoint_exclude_scopes."""
        top = [self.head.partition("/")[0], self.aux]
        return tuple(f"{self.scope}/{part}" for part in top if part)

    def build(self, *, image_size: int, outputs: Mapping[str, int], weight_decay: float = 0.0) -> keras.Model:
        """A freshly initialised model.

        Initial values and dropout follow the seed of `keras.utils.set_random_seed`.

        Args:
            image_size: height and width of the images in pixels.
            outputs: task name -> number of logits K.
            weight_decay: weight_decay * sum(w^2) / 2 over slim's regularised variables is in the model's `losses`.

        Returns:
            Model of images float32 [B, image_size, image_size, 3] -> logits float32 [B, K], or with several tasks a
            dict of task name -> [B, K].

        Raises:
            FlagError: the images are too small for this network.
        """
        flags.check_image_size(self.name, image_size)
        layers = Layers(
            scope=self.scope,
            weight_decay=weight_decay,
            norm=self.norm,
            max_value=self.max_value,
            initializer=self.initializer(),
            regularize_biases=self.regularize_biases,
        )
        images = keras.Input((image_size, image_size, 3), dtype="float32", name="images")
        x = self.body(layers, images)
        x = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{self.scope}.global_pool")(x)
        if self.dropout:
            x = keras.layers.Dropout(self.dropout, name=f"{self.scope}.Dropout")(x)
        logits = layers.logits(x, self.head.replace("/", "."), outputs, self.dense_head)
        return keras.Model(images, logits, name=self.name)
