from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tf_image_classification import flags as flag_table
from tf_image_classification.errors import CheckpointError, FlagError
from tf_image_classification.resolve import Resolved, resolve


def resolved(**values) -> Resolved:
    return resolve(flag_table.for_step("resolve", values))


def test_relative_paths_become_absolute(image_folder, monkeypatch):
    monkeypatch.chdir(image_folder.parent)
    found = resolved(train_metadata=image_folder.name)
    assert found.train_sources == str(image_folder)
    assert (found.eval_sources, found.checkpoint, found.checkpoint_version) == ("", "", "")
    assert len(found.fingerprint) == 64


def test_several_sources_stay_several(image_folder, monkeypatch):
    monkeypatch.chdir(image_folder)
    found = resolved(train_metadata=f"{image_folder}, ../{image_folder.name}")
    assert found.train_sources == f"{image_folder},{image_folder}"


def test_the_fingerprint_knows_another_split_and_a_touched_image(image_folder, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(image_folder, copy)
    before = resolved(train_metadata=str(copy))
    assert resolved(train_metadata=str(copy)).fingerprint == before.fingerprint
    assert resolved(train_metadata=str(copy), eval_fraction=0.3).fingerprint != before.fingerprint
    (copy / "bright" / "new.png").write_bytes((copy / "bright" / "00.png").read_bytes())
    assert resolved(train_metadata=str(copy)).fingerprint != before.fingerprint


def test_a_link_to_a_checkpoint_is_followed_and_its_content_has_a_version(image_folder, tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.keras").write_text(name)
    link = tmp_path / "latest"
    link.symlink_to("first")
    first = resolved(train_metadata=str(image_folder), checkpoint_path=str(link))
    assert first.checkpoint == str(tmp_path / "first")
    link.unlink()
    link.symlink_to("second")
    second = resolved(train_metadata=str(image_folder), checkpoint_path=str(link))
    assert second.checkpoint == str(tmp_path / "second")
    assert second.checkpoint_version != first.checkpoint_version


@pytest.mark.parametrize("name", ["model.ckpt", "model.ckpt.index"])
def test_a_checkpoint_prefix_is_found_by_its_files(image_folder, tmp_path, name):
    (tmp_path / "model.ckpt.index").write_text("index")
    (tmp_path / "model.ckpt.data-00000-of-00001").write_text("data")
    assert resolved(train_metadata=str(image_folder), checkpoint_path=str(tmp_path / name)).checkpoint == str(tmp_path / name)


def test_a_checkpoint_that_is_not_there_is_an_error(image_folder, tmp_path):
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        resolved(train_metadata=str(image_folder), checkpoint_path=str(tmp_path / "none.ckpt"))


def test_metadata_that_is_not_given_or_not_there_is_an_error(tmp_path):
    with pytest.raises(FlagError, match="--train_metadata is required"):
        resolved()
    with pytest.raises(FlagError, match="none"):
        resolved(train_metadata=str(tmp_path / "none"))


def test_images_that_are_too_small_for_the_network_are_refused_before_anything_is_built(image_folder):
    with pytest.raises(FlagError, match="too small for inception_v3"):
        resolved(train_metadata=str(image_folder), model_name="inception_v3", image_size=74)
    resolved(train_metadata=str(image_folder), model_name="inception_v3", image_size=4, estimator="own:Spec")


def test_it_needs_no_tensorflow(image_folder):
    program = (
        "import sys\nfrom tf_image_classification import flags, resolve\n"
        f"resolve.resolve(flags.for_step('resolve', {{'train_metadata': {str(image_folder)!r}}}))\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env={**os.environ})
    assert answer.returncode == 0, answer.stderr
