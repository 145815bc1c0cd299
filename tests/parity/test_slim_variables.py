"""Every network has slim's variables: names, shapes, what is trained and what is regularised.

manifests/NET.json lists what slim builds: [name, shape, trainable, regularised] for each variable, auxiliary heads included.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tf_image_classification import nets

MANIFESTS = Path(__file__).parent / "manifests"
SLOW = {"resnet_v1_101", "resnet_v1_152", "resnet_v2_101", "resnet_v2_152", "vgg_19"}  # deeper siblings of what is tested anyway
NETS = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in sorted(path.stem for path in MANIFESTS.glob("*.json"))
]
WEIGHT_DECAY = 0.00004


@pytest.mark.parametrize("name", NETS)
def test_variables_are_those_of_slim(name: str) -> None:
    manifest = json.loads((MANIFESTS / f"{name}.json").read_text())
    expected = {
        variable: (tuple(shape), trainable, regularised)
        for variable, shape, trainable, regularised in manifest["variables"]
        if "/AuxLogits/" not in variable
    }
    net = nets.NETS[name]
    model = nets.build(name, image_size=net.default_size, outputs={"label": manifest["classes"]}, weight_decay=WEIGHT_DECAY)
    variables = nets.scoped_names(model)

    assert {key: (tuple(variable.shape), variable.trainable, variable.regularizer is not None) for key, variable in variables.items()} == (
        expected
    )
    assert {float(variable.regularizer.l2) for variable in variables.values() if variable.regularizer} == {WEIGHT_DECAY / 2}
    assert net.params == sum(int(np.prod(variable.shape)) for variable in variables.values())
    assert (net.default_size, net.aux != "") == (manifest["image_size"], any("/AuxLogits/" in row[0] for row in manifest["variables"]))
