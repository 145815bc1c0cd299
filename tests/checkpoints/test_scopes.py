"""Values that --trainable_scopes refuses, and variables that it never selects."""

from __future__ import annotations

import keras
import pytest

from tf_image_classification import checkpoints, nets
from tf_image_classification.errors import FlagError


@pytest.fixture(scope="module")
def model() -> keras.Model:
    inputs = x = keras.Input((2,))
    for name in ("Net.block1", "Net.block10", "Net.Logits", "Net.LogitsExtra", "Head"):
        x = keras.layers.Dense(2, use_bias=False, name=name)(x)
    return keras.Model(inputs, x)


def test_a_scope_that_is_not_a_valid_regular_expression_is_refused(model: keras.Model) -> None:
    with pytest.raises(FlagError, match=r"not a valid regular expression.*Received: Net/\(block1"):
        checkpoints.trainable_variables(model, "Net/(block1")


def test_moving_statistics_are_never_selected() -> None:
    model = nets.build("small", image_size=8, outputs={"label": 2})
    assert len(checkpoints.trainable_variables(model, "Small/Conv2d_1_3x3")) == 3


def frozen_backbone() -> keras.Model:
    """A model that has frozen all but its head; moving statistics are never trained."""
    inputs = keras.Input((8, 8, 3))
    backbone = keras.Sequential(
        [keras.layers.Conv2D(2, 3, name="conv"), keras.layers.BatchNormalization(name="norm")], name="backbone"
    )
    backbone.trainable = False
    x = keras.layers.GlobalAveragePooling2D()(backbone(inputs))
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(x))


def test_scopes_that_select_frozen_layers_are_named(caplog: pytest.LogCaptureFixture) -> None:
    model = frozen_backbone()
    names = {id(variable): name for name, variable in nets.scoped_names(model).items()}
    selected = checkpoints.trainable_variables(model, ".*")
    assert [names[id(variable)] for variable in selected] == ["head/kernel", "head/bias"]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "selects 4 variables of layers that the model has frozen" in record.getMessage()
    assert record.getMessage().endswith("they are not trained: backbone/conv, backbone/norm")


@pytest.mark.parametrize("scopes", [None, "head"])
def test_frozen_layers_that_no_scope_selects_are_not_named(
    scopes: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(checkpoints.trainable_variables(frozen_backbone(), scopes)) == 2
    assert caplog.records == []


def test_the_error_says_if_everything_selected_is_frozen() -> None:
    with pytest.raises(
        FlagError, match=r"only layers that the model has frozen.*which matches backbone/conv\. .*such as head\."
    ):
        checkpoints.trainable_variables(frozen_backbone(), "backbone/conv")
