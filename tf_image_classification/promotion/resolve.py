"""What a pipeline's paths mean now: concrete sources, a fingerprint of the data, the warm start, the champion. It
imports no TensorFlow."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import os
from collections.abc import Mapping
from typing import NamedTuple

from tf_image_classification import flags as flag_table
from tf_image_classification import model_folder, storage
from tf_image_classification.data import dates, sources
from tf_image_classification.errors import FlagError, MissingCheckpointError
from tf_image_classification.flags import Flags
from tf_image_classification.promotion import champion
from tf_image_classification.promotion.champion import InService
from tf_image_classification.storage.local_files import Stat

_log = logging.getLogger(__name__)


class Resolved(NamedTuple):
    """The inputs of the later steps.

    Attributes:
        train_sources, eval_sources: metadata with absolute paths, dates filled in; '' when not set.
        fingerprint: changes whenever the data does.
        checkpoint: what training starts from, with links followed; '' for none.
        checkpoint_version: changes whenever the content at `checkpoint` does; '' for none.
        champion_folder: folder of the model in service; '' for none.
        champion_version: changes whenever the content at `champion_folder` does; '' for none.
        in_service: name of the model in service, where it is kept; '' for none.
    """

    train_sources: str
    eval_sources: str
    fingerprint: str
    checkpoint: str
    checkpoint_version: str
    champion_folder: str
    champion_version: str
    in_service: str


def resolve(flags: Flags, in_service: InService | None = None) -> Resolved:
    """Looks at what the flags of the resolve step name.

    Args:
        in_service: the model in service.

    Raises:
        FlagError: something that is named is not there, or images are too small for the network.
        MissingCheckpointError: nothing is found at --checkpoint_path.
    """
    if flags.train_metadata is None:
        raise FlagError(
            "--train_metadata is required", expected="a CSV, a folder with one sub-folder per class, or TFRecords"
        )
    if flags.estimator is None:
        flag_table.check_image_size(flags.model_name, flags.image_size)
    champion.check(flags.checkpoint_path, flags.champion)
    train_metadata, eval_metadata = (
        _of_today(metadata) for metadata in (flags.train_metadata, flags.eval_metadata or "")
    )
    fingerprint = sources.fingerprint(
        train_metadata,
        eval_metadata or None,
        labels_file=flags.labels_file,
        image_root=flags.image_root,
        eval_fraction=flags.eval_fraction,
    )
    folder = _follow(in_service.folder) if in_service else ""
    if flags.checkpoint_path == champion.WARM_START:
        checkpoint, version = _warm_start(folder, fingerprint, flags)
    else:
        checkpoint = _follow(flags.checkpoint_path) if flags.checkpoint_path else ""
        version = _version(checkpoint) if checkpoint else ""
    _log.info("Data %s; starting from %s; in service: %s", fingerprint[:12], checkpoint or "scratch", folder or "none")
    return Resolved(
        absolute(train_metadata),
        absolute(eval_metadata),
        fingerprint,
        checkpoint,
        version,
        folder,
        _version(folder) if folder else "",
        in_service.name if in_service else "",
    )


def _warm_start(folder: str, fingerprint: str, flags: Flags) -> tuple[str, str]:
    """The checkpoint that `--checkpoint_path champion` means, and its version.

    It is the champion; but if that was made of this data with these flags, it is what the champion was made from. The
    training then has
    the inputs that it had when it made the champion, and comes from the cache: data that does not change trains
        nothing.
    """
    if not folder:
        return "", ""
    facts = model_folder.read_facts(folder)
    if facts.get("data_fingerprint") == fingerprint and _deciding(facts.get("flags", {})) == _deciding(vars(flags)):
        start = facts.get("warm_start") or {"checkpoint": "", "version": ""}
        if not start["checkpoint"] or (
            _files(start["checkpoint"]) and _version(start["checkpoint"]) == start.get("version")
        ):
            return start["checkpoint"], start.get("version", "")
    return folder, _version(folder)


def _deciding(flags: Mapping[str, object]) -> dict[str, object]:
    """The flags that decide a training, besides what it starts from.

    Those that a model.json from before an option existed does not have are at their defaults.
    """
    deciding = {**flag_table.checkpoint_key_flags(flags), "train_steps": flags.get("train_steps")}
    deciding.pop("checkpoint_path", None)
    return deciding


def _of_today(metadata: str) -> str:
    """With {date} resolved in each source."""
    today = dt.datetime.now(dt.UTC).date()
    return (
        ",".join(dates.newest(part.strip(), today) for part in metadata.split(","))
        if dates.PLACEHOLDER in metadata
        else metadata
    )


def absolute(metadata: str) -> str:
    """A path, or several separated by commas, as it reads from any folder: later steps may run in another one."""
    parts = [metadata] if storage.exists(metadata) else metadata.split(",")
    return ",".join(
        part if storage.is_gcs(part) else os.path.abspath(part) for part in (part.strip() for part in parts) if part
    )


def _follow(path: str) -> str:
    """A link such as runs/latest names another folder tomorrow: what it names now is what counts."""
    return path if storage.is_gcs(path) else os.path.realpath(path)


def _version(path: str) -> str:
    """A hash over names, sizes and versions of the files of a checkpoint: a folder, or all files that begin with its
    name."""
    files = _files(path)
    if not files:
        raise MissingCheckpointError(
            "There is no checkpoint here",
            received=path,
            expected="a .ckpt (its prefix or file), a folder of checkpoints, .keras or .weights.h5",
        )
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{os.path.basename(file.path)}\0{file.size}\0{file.version}\n".encode())
    return digest.hexdigest()


def _files(path: str) -> list[Stat]:
    if storage.is_dir(path):
        return list(storage.walk(path))
    return [storage.stat(found) for found in storage.glob(path) or storage.glob(f"{path}.*")]
