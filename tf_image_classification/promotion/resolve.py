"""Resolves a pipeline's paths when it runs: concrete sources, a data fingerprint, the warm start and the champion.

It imports no TensorFlow.
"""

from __future__ import annotations

import datetime as dt
import glob
import hashlib
import itertools
import logging
import os
from collections.abc import Mapping
from typing import NamedTuple

from tf_image_classification import (
    estimator_code,
    imagenet_weights,
    model_folder,
    network_sizes,
    storage,
    training_key,
)
from tf_image_classification.data import dates, sources
from tf_image_classification.data.fingerprint import CONTENT_BYTES, content_digests
from tf_image_classification.data.fingerprint import fingerprint as fingerprint_of
from tf_image_classification.data.sources import ReadOptions
from tf_image_classification.errors import DataError, FlagError, MissingCheckpointError
from tf_image_classification.estimator_code import EstimatorCode
from tf_image_classification.flags import Flags
from tf_image_classification.imagenet_weights import IMAGENET
from tf_image_classification.promotion import champion
from tf_image_classification.promotion.champion import InService

_log = logging.getLogger(__name__)


class Resolved(NamedTuple):
    """The inputs of the later steps.

    Attributes:
        train_sources, eval_sources: metadata with absolute paths, dates filled in; '' when not set.
        fingerprint: changes whenever the data does.
        checkpoint: what training starts from, with symbolic links resolved, or the word imagenet; '' for none.
        checkpoint_version: changes whenever the content at `checkpoint` does; '' for none.
        estimator_version: changes whenever the content of --packages or the source of --estimator does, as far as it is
            found here; '' for none.
        champion_folder: folder of the model in service; '' for none.
        champion_version: changes whenever the content at `champion_folder` does; '' for none.
        in_service: name of the model in service; '' for none.
    """

    train_sources: str
    eval_sources: str
    fingerprint: str
    checkpoint: str
    checkpoint_version: str
    estimator_version: str
    champion_folder: str
    champion_version: str
    in_service: str


def resolve(flags: Flags, in_service: InService | None = None) -> Resolved:
    """Resolves the flags of the resolve step to the inputs of the later steps.

    Args:
        flags: of the resolve step.
        in_service: the model in service; None for none.

    Raises:
        FlagError: a path or package was not found, images are too small for the network, --checkpoint_path imagenet
            has no weights for it, or no model could be promoted to --champion.
        MissingCheckpointError: no checkpoint was found at --checkpoint_path.
    """
    if flags.train_metadata is None:
        raise FlagError(
            "--train_metadata is required", expected="a CSV, a folder with one sub-folder per class, or TFRecords"
        )
    if flags.estimator is None:
        network_sizes.check_image_size(flags.model_name, flags.image_size)
    champion.check(flags.checkpoint_path, flags.champion)
    if flags.champion and flags.promote and not champion.is_registry(flags.champion):
        storage.check_overwritable(flags.champion, "A promotion replaces the pointer in --champion")
    today = dt.datetime.now(dt.UTC).date()
    train_metadata = dates.fill_in(flags.train_metadata, today)
    eval_metadata = dates.fill_in(flags.eval_metadata or "", today)
    fingerprint = fingerprint_of(
        train_metadata,
        eval_metadata or None,
        labels_file=flags.labels_file,
        eval_fraction=flags.eval_fraction,
        options=ReadOptions.of(flags),
    )
    code = estimator_code.find(flags.estimator, flags.packages)
    champion_folder = _resolve_links(in_service.folder) if in_service else ""
    if flags.checkpoint_path == champion.WARM_START:
        checkpoint, checkpoint_version = _warm_start(champion_folder, fingerprint, flags, code)
    elif flags.checkpoint_path:
        checkpoint = _resolve_links(flags.checkpoint_path)
        checkpoint_version = _checkpoint_version(checkpoint, flags)
    else:
        checkpoint = checkpoint_version = ""
    _log.info(
        "Warm start: %s; in service: %s",
        checkpoint or "none",
        champion_folder or "none",
    )
    if flags.estimator:
        _log.info("Code of %s: %s", flags.estimator, code.described())
    return Resolved(
        train_sources=absolute_paths(train_metadata),
        eval_sources=absolute_paths(eval_metadata),
        fingerprint=fingerprint,
        checkpoint=checkpoint,
        checkpoint_version=checkpoint_version,
        estimator_version=code.version,
        champion_folder=champion_folder,
        champion_version=_content_version(champion_folder) if champion_folder else "",
        in_service=in_service.name if in_service else "",
    )


def absolute_paths(metadata: str) -> str:
    """A path, or several separated by commas, made absolute: later steps may run in another working directory."""
    paths = sources.split_metadata(metadata)
    return ",".join(path if storage.is_remote(path) else os.path.abspath(path) for path in paths)


def _warm_start(champion_folder: str, fingerprint: str, flags: Flags, code: EstimatorCode) -> tuple[str, str]:
    """The checkpoint that `--checkpoint_path champion` means, and the version of its content.

    It is the champion itself, unless the champion was trained on this data with these flags and this code: then it is
    the checkpoint that the champion was trained from, if that is unchanged. The train step then has the inputs of the
    run that trained the champion and is taken from the cache: as long as the data does not change, nothing is trained.

    Args:
        champion_folder: '' for none; training then starts from scratch.
        fingerprint: of the data.
        flags: of the resolve step, which include those of the train step.
        code: of the estimator.
    """
    if not champion_folder:
        return "", ""
    facts = model_folder.read_facts(champion_folder)
    is_same = facts.get("data_fingerprint") == fingerprint and not code.differences({"packages": {}, **facts})
    if is_same and _deciding(facts.get("flags", {})) == _deciding(vars(flags)):
        start = facts.get("warm_start") or {}
        checkpoint, version = start.get("checkpoint", ""), start.get("version", "")
        if not isinstance(checkpoint, str) or not isinstance(version, str):
            raise DataError(
                f"The warm start in {storage.join(champion_folder, model_folder.FACTS)} cannot be read",
                received=start,
                expected="`checkpoint` and `version` as text, as training exports them",
                hint="Put another model in service, or give another --checkpoint_path.",
            )
        is_there = checkpoint == IMAGENET or _checkpoint_files(checkpoint)
        if not checkpoint or (is_there and _checkpoint_version(checkpoint, flags) == version):
            return checkpoint, version
    return champion_folder, _content_version(champion_folder)


def _deciding(flags: Mapping[str, object]) -> dict[str, object]:
    """The flags that decide a training, besides what it starts from.

    Those that a model.json from before an option existed does not have are at their defaults.
    """
    deciding = {**training_key.checkpoint_key_flags(flags), "train_steps": flags.get("train_steps")}
    deciding.pop("checkpoint_path", None)
    return deciding


def _resolve_links(path: str) -> str:
    """The path without symbolic links: one such as runs/latest points to another folder tomorrow."""
    return path if storage.is_remote(path) or path == IMAGENET else os.path.realpath(path)


def _checkpoint_version(checkpoint: str, flags: Flags) -> str:
    """What changes whenever the content of a checkpoint does.

    Raises:
        FlagError: it is the word imagenet, and nothing is published for the network.
        MissingCheckpointError: there are no such files.
    """
    if checkpoint == IMAGENET:
        return imagenet_weights.file_of(None if flags.estimator else flags.model_name).version
    return _content_version(checkpoint)


def _content_version(path: str) -> str:
    """A SHA-256 hash of the names, sizes and versions of a checkpoint's files.

    Of local files it is the content, unless they are too large together: a training's folder may hold its data set.

    Raises:
        MissingCheckpointError: there are no such files.
    """
    files = _checkpoint_files(path)
    if not files:
        raise MissingCheckpointError(
            "Checkpoint not found",
            received=path,
            expected="a .ckpt (its prefix or file), a folder of checkpoints, .keras or .h5, or imagenet",
        )
    files.sort()
    is_small = sum(file.size for file in files) <= CONTENT_BYTES
    digest, contents = hashlib.sha256(), content_digests(file.path for file in files if is_small)
    for file, content in itertools.zip_longest(files, contents):
        digest.update(f"{os.path.basename(file.path)}\0{file.size}\0{content or file.version}\n".encode())
    return digest.hexdigest()


def _checkpoint_files(path: str) -> list[storage.Stat]:
    """All files of a folder, the file itself, or the files of a checkpoint prefix."""
    if storage.is_dir(path):
        return list(storage.walk(path))
    return [storage.stat(found) for found in storage.glob(path) or storage.glob(f"{glob.escape(path)}.*")]
