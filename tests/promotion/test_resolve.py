from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.packaged import wheel
from tests.standin.bucket import Buckets
from tests.standin.bucket_rules import Rules
from tf_image_classification import estimator_code, recipes
from tf_image_classification import flags as flag_table
from tf_image_classification.errors import CheckpointError, DataError, FlagError
from tf_image_classification.promotion.champion import InService
from tf_image_classification.promotion.resolve import Resolved, resolve


def resolved(in_service: InService | None = None, **values) -> Resolved:
    return resolve(flag_table.for_step("resolve", values), in_service)


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


def test_the_fingerprint_changes_with_the_split_and_with_a_new_image(image_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(image_folder, copy)
    before = resolved(train_metadata=str(copy))
    assert resolved(train_metadata=str(copy)).fingerprint == before.fingerprint
    assert resolved(train_metadata=str(copy), eval_fraction=0.3).fingerprint != before.fingerprint
    (copy / "bright" / "new.png").write_bytes((copy / "bright" / "00.png").read_bytes())
    assert resolved(train_metadata=str(copy)).fingerprint != before.fingerprint


def test_a_link_to_a_checkpoint_is_resolved_and_its_content_has_a_version(image_folder, tmp_path):
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


def test_the_version_of_a_local_checkpoint_is_its_content_and_not_its_times(image_folder, tmp_path):
    def version(content: str) -> str:
        checkpoint.write_text(content)
        os.utime(checkpoint, ns=(0, next(times)))
        return resolved(train_metadata=str(image_folder), checkpoint_path=str(checkpoint)).checkpoint_version

    checkpoint, times = tmp_path / "model.keras", iter((1, 2, 2))
    assert version("weights") == version("weights") != version("WEIGHTS")


def test_a_training_folder_too_large_to_be_read_in_seconds_has_the_version_of_its_times(
    image_folder, tmp_path, monkeypatch
):
    def version(time: int) -> str:
        os.utime(shard, ns=(0, time))
        return resolved(train_metadata=str(image_folder), checkpoint_path=str(tmp_path)).checkpoint_version

    shard = tmp_path / "data" / "train-00000-of-00001.tfrecord"
    shard.parent.mkdir()
    shard.write_bytes(bytes(9))
    assert version(1) == version(2)
    monkeypatch.setattr("tf_image_classification.promotion.resolve.CONTENT_BYTES", 8)
    assert version(1) == version(1) != version(2)


@pytest.mark.parametrize("name", ["model.ckpt", "model.ckpt.index"])
def test_a_checkpoint_prefix_is_found_by_its_files(image_folder, tmp_path, name):
    (tmp_path / "model.ckpt.index").write_text("index")
    (tmp_path / "model.ckpt.data-00000-of-00001").write_text("data")
    path = str(tmp_path / name)
    assert resolved(train_metadata=str(image_folder), checkpoint_path=path).checkpoint == path


def test_a_missing_checkpoint_is_an_error(image_folder, tmp_path):
    with pytest.raises(CheckpointError, match="Checkpoint not found"):
        resolved(train_metadata=str(image_folder), checkpoint_path=str(tmp_path / "none.ckpt"))


@pytest.fixture
def champion(tmp_path):
    """Creates the model folder of a champion, with this content of model.json."""

    def make(**facts) -> InService:
        folder = tmp_path / "champion" / "models" / "1"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.json").write_text(json.dumps(facts))
        (folder / "model.keras").write_text("weights")
        return InService("models/1", str(folder))

    return make


def _train_flags(**values) -> dict:
    return vars(flag_table.for_step("train", values)) | {"model_dir": "/elsewhere", "checkpoint_path": None}


def test_a_training_starts_from_the_champion_if_checkpoint_path_is_champion(image_folder, champion):
    warm = {"train_metadata": str(image_folder), "champion": "/home", "checkpoint_path": "champion"}
    assert resolved(**warm).checkpoint == ""
    in_service = champion(data_fingerprint="of other data", flags=_train_flags(), warm_start=None)
    found = resolved(in_service, **warm)
    assert found.checkpoint == found.champion_folder == in_service.folder
    assert found.checkpoint_version == found.champion_version != ""
    assert found.in_service == "models/1"
    without = resolved(in_service, **warm | {"checkpoint_path": ""})
    assert (without.checkpoint, without.champion_folder) == ("", in_service.folder)


def test_a_champion_trained_on_this_data_with_these_flags_is_replaced_by_its_own_warm_start(
    image_folder, champion, tmp_path
):
    warm = {"train_metadata": str(image_folder), "champion": "/home", "checkpoint_path": "champion"}
    (tmp_path / "pretrained.keras").write_text("weights")
    before = resolved(train_metadata=str(image_folder), checkpoint_path=str(tmp_path / "pretrained.keras"))
    start = {"checkpoint": before.checkpoint, "version": before.checkpoint_version, "loaded": 3}
    in_service = champion(data_fingerprint=before.fingerprint, flags=_train_flags(), warm_start=start)
    again = resolved(in_service, **warm)
    assert (again.checkpoint, again.checkpoint_version) == (before.checkpoint, before.checkpoint_version)
    assert resolved(in_service, **warm, train_steps=21).checkpoint == in_service.folder
    assert resolved(in_service, **warm, eval_fraction=0.3).checkpoint == in_service.folder
    scratch = champion(data_fingerprint=before.fingerprint, flags=_train_flags(), warm_start=None)
    assert resolved(scratch, **warm).checkpoint == ""


def test_the_version_of_an_estimator_follows_its_packages(image_folder, tmp_path):
    def version() -> str:
        return resolved(train_metadata=str(image_folder), estimator="own:Spec", packages=str(package)).estimator_version

    package = wheel(tmp_path / "own-1-py3-none-any.whl", "own", "A = 1\n")
    before = version()
    assert before == version() != ""
    wheel(package, "own", "A = 2\n")
    assert version() != before
    assert resolved(train_metadata=str(image_folder)).estimator_version == ""


def test_a_champion_trained_with_other_packages_is_what_training_starts_from(image_folder, champion, tmp_path):
    package = wheel(tmp_path / "own-1-py3-none-any.whl", "own", "A = 1\n")
    own = {"estimator": "own:Spec", "packages": str(package)}
    warm = {"train_metadata": str(image_folder), "champion": "/home", "checkpoint_path": "champion", **own}
    in_service = champion(
        data_fingerprint=resolved(train_metadata=str(image_folder)).fingerprint,
        flags=_train_flags(**own),
        warm_start=None,
        **estimator_code.find(own["estimator"], own["packages"]).facts(),
    )
    moved = package.rename(tmp_path / "own-1-py2.py3-none-any.whl")
    assert resolved(in_service, **warm | {"packages": str(moved)}).checkpoint == ""  # from scratch, as the champion
    wheel(package, "own", "A = 2\n")
    assert resolved(in_service, **warm).checkpoint == in_service.folder


@pytest.mark.parametrize("change", ["folder", "labels file", "csv"])
def test_with_other_class_names_a_training_starts_from_the_champion(change, image_folder, champion, tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels.txt"
    shutil.copytree(image_folder, images)
    labels.write_text("bright\ndark\n")
    paths = sorted(path.relative_to(images) for path in images.rglob("*.*g"))
    (images / "images.csv").write_text("".join(f"{path},{path.parent}\n" for path in paths))
    metadata = str(images / "images.csv") if change == "csv" else str(images)
    warm = {"train_metadata": metadata, "champion": "/home", "checkpoint_path": "champion"}
    if change == "labels file":
        warm["labels_file"] = str(labels)
    fingerprint = resolved(**warm).fingerprint
    in_service = champion(data_fingerprint=fingerprint, flags=_train_flags(), warm_start=None)
    assert resolved(in_service, **warm).checkpoint == ""  # as the champion: nothing is trained
    if change == "folder":
        (images / "dark").rename(images / "night")
    elif change == "labels file":
        labels.write_text("dark\nbright\n")
    else:
        text = (images / "images.csv").read_text()
        (images / "images.csv").write_text(text.replace(",dark", ",dusk"))
    assert resolved(in_service, **warm).checkpoint == in_service.folder


def test_a_flag_added_since_the_champion_was_trained_changes_the_comparison_only_by_another_value(
    image_folder, champion, monkeypatch
):
    warm = {"train_metadata": str(image_folder), "champion": "/home", "checkpoint_path": "champion"}
    fingerprint = resolved(train_metadata=str(image_folder)).fingerprint
    in_service = champion(data_fingerprint=fingerprint, flags=_train_flags(), warm_start=None)
    added = flag_table.Flag("grad_clip", float, 0.0, "Optimizers", "A flag of a later version.")
    monkeypatch.setattr(flag_table, "FLAGS", (*flag_table.FLAGS, added))
    monkeypatch.setitem(flag_table.BY_NAME, added.name, added)
    assert resolved(in_service, **warm).checkpoint == ""  # from scratch, as the champion
    assert resolved(in_service, **warm, grad_clip=1.0).checkpoint == in_service.folder


def test_a_recipe_is_compared_with_the_champion_by_its_values(image_folder, champion):
    values = recipes.RECIPES["finetune"]
    warm = {"train_metadata": str(image_folder), "champion": "/home", "checkpoint_path": "champion"}
    in_service = champion(
        data_fingerprint=resolved(train_metadata=str(image_folder)).fingerprint,
        flags=vars(recipes.for_step("train", values)) | {"checkpoint_path": None},
        warm_start=None,
    )
    assert resolve(recipes.for_step("resolve", warm | {"recipe": "finetune"}), in_service).checkpoint == ""
    other = recipes.for_step("resolve", warm | {"recipe": "finetune", "learning_rate": 0.5})
    assert resolve(other, in_service).checkpoint == in_service.folder


def test_the_warm_start_of_the_champion_is_used_only_while_it_is_unchanged(image_folder, champion, tmp_path):
    warm = {"train_metadata": str(image_folder), "champion": "/home", "checkpoint_path": "champion"}
    pretrained = tmp_path / "pretrained.keras"
    pretrained.write_text("weights")
    before = resolved(train_metadata=str(image_folder), checkpoint_path=str(pretrained))
    start = {"checkpoint": before.checkpoint, "version": before.checkpoint_version}
    in_service = champion(data_fingerprint=before.fingerprint, flags=_train_flags(), warm_start=start)
    pretrained.write_text("other weights")
    assert resolved(in_service, **warm).checkpoint == in_service.folder
    pretrained.unlink()
    assert resolved(in_service, **warm).checkpoint == in_service.folder


def test_the_word_imagenet_is_no_path_and_has_the_version_of_the_published_file(image_folder, tmp_path, monkeypatch):
    (tmp_path / "imagenet").write_text("a file that is called so")
    monkeypatch.chdir(tmp_path)
    found = resolved(train_metadata=str(image_folder), checkpoint_path="imagenet", model_name="ResNet50")
    assert found.checkpoint == "imagenet"
    version = "resnet50_weights_tf_dim_ordering_tf_kernels.h5 md5:2cb95161c43110f7111970584f804107"
    assert found.checkpoint_version == version


@pytest.mark.parametrize("flags", [{"model_name": "inception_v3"}, {"model_name": "ResNet50", "estimator": "own:Spec"}])
def test_the_word_imagenet_is_refused_where_nothing_is_published(image_folder, flags):
    with pytest.raises(FlagError, match=r"keras\.applications.*docs/checkpoints\.md"):
        resolved(train_metadata=str(image_folder), checkpoint_path="imagenet", **flags)


def test_a_champion_trained_from_imagenet_on_this_data_is_replaced_by_that(image_folder, champion):
    warm = {"train_metadata": str(image_folder), "champion": "/home", "model_name": "ResNet50"}
    before = resolved(**warm | {"checkpoint_path": "imagenet"})
    start = {"checkpoint": "imagenet", "version": before.checkpoint_version}
    in_service = champion(
        data_fingerprint=before.fingerprint, flags=_train_flags(model_name="ResNet50"), warm_start=start
    )
    again = resolved(in_service, **warm, checkpoint_path="champion")
    assert (again.checkpoint, again.checkpoint_version) == ("imagenet", before.checkpoint_version)


def test_missing_metadata_is_an_error(tmp_path):
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
        "import sys\nfrom tf_image_classification import flags\nfrom tf_image_classification.promotion import resolve\n"
        f"values = {{'train_metadata': {str(image_folder)!r}, 'estimator': 'tests.packaged:Spec'}}\n"
        "assert resolve.resolve(flags.for_step('resolve', values)).estimator_version\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    "start", [{"checkpoint": 1}, {"checkpoint": ["a"], "version": ""}, {"checkpoint": "a", "version": 1}]
)
def test_a_champion_whose_warm_start_cannot_be_read_is_an_error(start, image_folder, champion):
    before = resolved(train_metadata=str(image_folder))
    in_service = champion(data_fingerprint=before.fingerprint, flags=_train_flags(), warm_start=start)
    with pytest.raises(DataError, match=r"warm start in \S+model\.json cannot be read"):
        resolved(in_service, train_metadata=str(image_folder), champion="/home", checkpoint_path="champion")


@pytest.mark.parametrize("wrong", [[], {}, None, "x", {"a": [1]}])
def test_any_flags_in_the_champions_model_json_are_those_of_another_training(wrong, image_folder, champion):
    before = resolved(train_metadata=str(image_folder))
    flags = _train_flags() | {"learning_rate": wrong, "learning_rate_decay_type": wrong, "warmup_fraction": wrong}
    in_service = champion(data_fingerprint=before.fingerprint, flags=flags, warm_start={})
    found = resolved(in_service, train_metadata=str(image_folder), champion="/home", checkpoint_path="champion")
    assert found.checkpoint == in_service.folder


@pytest.fixture
def service(monkeypatch):
    with Buckets("bucket") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        yield service


def test_a_bucket_in_which_no_model_could_be_promoted_is_refused_before_the_data_is_read(service, image_folder):
    flags = {"train_metadata": str(image_folder), "champion": "gs://bucket/service"}
    assert resolved(**flags).champion_folder == ""
    service.rules = Rules(deletion=False)
    with pytest.raises(FlagError, match=r"^A promotion replaces.*--champion.*gs://bucket/service.*objects\.delete"):
        resolved(**flags)
    assert resolved(**flags, promote=False).champion_folder == ""  # another account promotes it
