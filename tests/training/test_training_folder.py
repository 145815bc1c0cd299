"""The folder of a training in a bucket: what is uploaded when, and two trainings in one folder."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import tensorflow as tf

from tests.standin import s3
from tests.standin.bucket import Buckets
from tests.standin.bucket_rules import Rules
from tests.standin.faults import Fault
from tests.training.support import RUN, listed, names, working_folders
from tf_image_classification import storage
from tf_image_classification.errors import FlagError, TrainingError
from tf_image_classification.training import training_folder
from tf_image_classification.training.history import HISTORY_FILE, read_history


class Publisher:
    """A training in RUN as far as its folder is concerned: its state is one number."""

    def __init__(self, folder: training_folder.TrainingFolder) -> None:
        self.value = tf.Variable(0)
        self.folder = folder
        self.manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(value=self.value),
            folder.local,
            max_to_keep=training_folder.CHECKPOINTS_KEPT,
            checkpoint_name=training_folder.CHECKPOINT_NAME,
        )

    def restore(self) -> int:
        """Continues from the folder's newest checkpoint."""
        newest = self.manager.latest_checkpoint
        self.folder.fetch(newest)
        self.manager.checkpoint.restore(newest).assert_consumed()
        self.folder.claim()
        return int(self.value)

    def save(self, step: int) -> None:
        self.value.assign(step)
        self.folder.publish_checkpoint(self.manager.save(checkpoint_number=step))


def test_the_newest_five_checkpoints_stay_and_what_a_killed_training_left_goes(service):
    storage.write_bytes(f"{RUN}/model.ckpt-3.data-00000-of-00001", b"never listed")
    storage.write_bytes(f"{RUN}/notes.txt", b"not ours")
    with training_folder.open_folder(RUN) as folder:
        training = Publisher(folder)
        for step in range(5, 13):
            training.save(step)
            folder.finish()
    assert listed(RUN) == [f"model.ckpt-{step}" for step in range(8, 13)]
    files = [f"model.ckpt-{step}.{kind}" for step in range(8, 13) for kind in ("data-00000-of-00001", "index")]
    assert sorted(names(RUN)) == sorted(["checkpoint", "notes.txt", *files])


def test_whatever_is_listed_exists_at_every_moment(service):
    with training_folder.open_folder(RUN) as folder:
        training = Publisher(folder)
        for step in range(8):
            training.save(step)
            folder.finish()
    there: set[str] = set()
    for change in service.changes:
        if change.crc32c:
            there.add(change.path)
        else:
            there.discard(change.path)
        if change.path == f"{RUN}/checkpoint":
            newest = max(int(re.search(r"-(\d+)", path)[1]) for path in there if path.endswith(".index"))
            assert {f"{RUN}/model.ckpt-{newest}.index", f"{RUN}/model.ckpt-{newest}.data-00000-of-00001"} <= there


def test_training_does_not_wait_for_uploads_and_the_newest_checkpoint_is_uploaded(service):
    with training_folder.open_folder(RUN) as folder:
        service.faults.append(Fault("stalled", "POST", "upload", seconds=1.0))
        training = Publisher(folder)
        for step in range(20):
            training.save(step)
        assert f"{RUN}/checkpoint" not in [change.path for change in service.changes]
    assert listed(RUN)[-1] == "model.ckpt-19"


@pytest.fixture(params=["gs", "s3"])
def both(request, service, monkeypatch) -> Iterator[tuple[Buckets | s3.S3, str]]:
    """The service and the folder of a training, on gs:// and on s3://."""
    if request.param == "gs":
        yield service, RUN
        return
    with s3.S3("models") as other:
        for name, value in s3.environment(other.url).items():
            monkeypatch.setenv(name, value)
        yield other, "s3://models/run"


def test_of_two_trainings_that_start_afresh_the_second_to_save_stops(both):
    _, run = both
    with (
        pytest.raises(TrainingError, match=rf"Another training has taken over {run}"),
        training_folder.open_folder(run) as lost,
    ):
        with training_folder.open_folder(run) as winner:
            Publisher(winner).save(1)
        Publisher(lost).save(2)
    assert listed(run) == ["model.ckpt-1"]
    assert not working_folders()


def test_a_training_that_another_one_continues_stops_at_its_next_checkpoint(both):
    service, run = both
    with pytest.raises(TrainingError, match="Another training has taken over"), training_folder.open_folder(run) as old:
        lost = Publisher(old)
        lost.save(5)
        old.finish()
        with training_folder.open_folder(run) as new:
            training = Publisher(new)
            assert training.restore() == 5
            before = len(service.changes)
            lost.save(6)
            old._worker.wait()
            assert len(service.changes) == before  # it has seen that it is no longer alone, and written nothing
            training.save(7)
    assert listed(run) == ["model.ckpt-5", "model.ckpt-7"]


def test_of_two_trainings_that_continue_from_one_checkpoint_at_once_one_stops(both):
    _, run = both
    with training_folder.open_folder(run) as folder:
        Publisher(folder).save(5)
    with (
        training_folder.open_folder(run) as one,
        pytest.raises(TrainingError, match="Another training"),
        training_folder.open_folder(run) as two,
    ):
        first, second = Publisher(one), Publisher(two)
        first.restore()
        second.restore()


def test_what_tensorflow_left_of_a_checkpoint_when_it_was_killed_or_the_disk_was_full_goes(tmp_path):
    for name in ("model.ckpt-6_temp", "my_temp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part-00000-of-00001.data-00000-of-00001.tempstate1").write_text("half")
    with training_folder.open_folder(str(tmp_path)):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "my_temp"]


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"\0\0\0",
        b'{"kind": "ev',
        b"7",
        b'{"kind": "eval", "step": "2"}',
        b'{"kind": [], "step": 2}',
        b'{"kind": "eval", "step": 2, "loss": "low"}',
        b"[" * 100_000,
    ],
)
def test_a_history_counts_up_to_the_first_line_that_is_damaged(tmp_path, line):
    good = b'{"kind": "eval", "step": 1, "loss": 0.5}\n'
    (tmp_path / HISTORY_FILE).write_bytes(good + line + b"\n" + good)
    assert read_history(str(tmp_path)) == [{"kind": "eval", "step": 1, "loss": 0.5}]


@pytest.mark.parametrize("rules", [Rules(retention=True), Rules(deletion=False)], ids=["retention", "no delete rights"])
def test_a_bucket_whose_objects_cannot_be_replaced_is_refused_before_training(service, rules):
    service.rules = rules
    with (
        pytest.raises(FlagError, match=rf"^A training replaces its checkpoints.*--model_dir.*{RUN}.*Received: .*403"),
        training_folder.open_folder(RUN),
    ):
        pytest.fail("the training began")
    assert not working_folders()


def test_a_checkpoint_that_may_not_be_removed_any_more_stays_and_training_goes_on(service, caplog):
    with training_folder.open_folder(RUN) as folder:
        training = Publisher(folder)
        for step in range(7):
            training.save(step)
            folder._worker.wait()
            service.faults = [Fault("refused", "DELETE", r"model\.ckpt", times=10**6, code=403)]
    assert len(listed(RUN)) == 5
    assert f"{RUN}/model.ckpt-0.index" in [file.path for file in storage.walk(RUN)]
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
