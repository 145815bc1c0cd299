"""Networks of slim's family: convolutions under slim's variable names, global average pooling, a linear head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras

from tf_image_classification.nets.layers import Layers, Norm, Tensor
from tf_image_classification.nets.network import Network


@dataclass(frozen=True, kw_only=True)
class SlimBuilder:
    """Builds one of slim's networks: body -> global average pooling -> dropout -> logits.

    Attributes:
        name: name of the Keras model.
        scope: slim's variable scope, the first part of every variable's name.
        head: slim's scope of the logits, relative to `scope`.
        aux: scope of an auxiliary head that slim's checkpoints hold and that is not built here.
        dense_head: whether slim's head is a fully connected layer rather than a 1x1 convolution: their kernels differ
            in shape.
        dropout: share of the features that training drops before the logits.
        norm: batch normalisation after each convolution; None: a bias instead.
        max_value: where the rectifier saturates; None: nowhere.
        initializer: makes the initializer of the kernels.
        regularize_biases: whether biases are regularised like kernels.
        body: layers and images float32 [B, H, W, 3] -> features [B, h, w, C].
    """

    name: str
    scope: str
    head: str
    aux: str = ""
    dense_head: bool = False
    dropout: float = 0.0
    norm: Norm | None
    max_value: float | None = None
    initializer: Callable[[], keras.initializers.Initializer]
    regularize_biases: bool = False
    body: Callable[[Layers, Tensor], Tensor]

    @property
    def head_scopes(self) -> tuple[str, ...]:
        """Scopes of the logits and of the auxiliary head, with the network's own scope before them."""
        heads = [self.head.partition("/")[0], self.aux]
        return tuple(f"{self.scope}/{head}" for head in heads if head)

    def __call__(self, *, image_size: int, outputs: Mapping[str, int], weight_decay: float) -> keras.Model:
        """Builds the model; see `Network.build`."""
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


def slim_network(
    builder: SlimBuilder, *, preprocessing: str, default_size: int, min_size: int, num_params: int
) -> Network:
    """The network that `builder` builds, under its name and with the scopes of its heads.

    Args:
        preprocessing, default_size, min_size, num_params: see `Network`.
    """
    return Network(
        name=builder.name,
        builder=builder,
        preprocessing=preprocessing,
        head_scopes=builder.head_scopes,
        default_size=default_size,
        min_size=min_size,
        num_params=num_params,
    )
