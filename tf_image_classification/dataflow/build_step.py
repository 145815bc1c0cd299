"""The build step of a pipeline that was compiled with --build_runner dataflow: launches the job, and writes the data.

It runs in the image that the workers have, with Apache Beam.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from tf_image_classification import build_tfrecords, storage
from tf_image_classification.build_tfrecords import beam_runner
from tf_image_classification.build_tfrecords.beam_runner import DATAFLOW, BeamRunner
from tf_image_classification.data.manifest import Manifest
from tf_image_classification.data.sources import split_metadata
from tf_image_classification.dataflow import client
from tf_image_classification.dataflow.client import Jobs
from tf_image_classification.dataflow.job import DataflowJob
from tf_image_classification.dataflow.options import DataflowOptions
from tf_image_classification.errors import FlagError, UnavailableError, UserError
from tf_image_classification.flags import Flags
from tf_image_classification.launch import stop_signal

_PLACEHOLDER = "{{$"  # begins what only Vertex AI fills in
# Kubeflow's folder of a task's outputs ends so, and a repeated task gets another one.
_TASK_ID = re.compile(r"/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_RUN_LABELS_VARIABLE = "VERTEX_AI_PIPELINES_RUN_LABELS"  # of a pipeline's steps: a JSON object
_PATHS = ("train_metadata", "eval_metadata", "image_root")  # of images, which the workers open

_log = logging.getLogger(__name__)


def build(data_uri: str, flags: Flags, *, dataflow: str, run: Mapping[str, str], fingerprint: str) -> Manifest:
    """Builds a data set on Dataflow as `build_tfrecords.build` does on one machine. Retried, it goes on with its job.

    Args:
        data_uri: folder for the data set, on gs://.
        flags: of the build step.
        dataflow: DataflowOptions in JSON.
        run: `project`, `location`, `service_account` and `encryption_key` of the run, as Vertex AI fills them in.
        fingerprint: of the data, from resolve.

    Raises:
        FlagError: Dataflow cannot write there, or it is not known where it is to run.
        UserError: as of `build_tfrecords.build`; the job failed, or somebody else cancelled it.
        SystemExit: the step was stopped; the job is cancelled.
    """
    if not storage.is_gcs(data_uri):
        raise FlagError(
            "Dataflow cannot write the data set there",
            received=data_uri,
            expected="a pipeline root on gs://",
            hint="Without --build_runner dataflow the step builds on its own machine.",
        )
    storage.bill_to(flags.billing_project)
    run = {name: "" if _PLACEHOLDER in value else value for name, value in run.items()}
    options = _completed(DataflowOptions.from_json(dataflow), run)
    task_folder = _TASK_ID.sub("", posixpath.dirname(data_uri))
    what = json.dumps([task_folder, dataflow, vars(flags), fingerprint], sort_keys=True)
    name = f"build-tfrecords-{hashlib.sha256(what.encode()).hexdigest()[:24]}"
    folder = storage.join(options.temp_location or storage.join(task_folder, "dataflow"), name)
    jobs = Jobs(run["project"], options.region)
    job = DataflowJob(jobs, name, storage.join(folder, "work"))
    words = [*options.words(), *_words(jobs.project, name, folder, run["encryption_key"])]
    runner = BeamRunner(DATAFLOW, tuple(words), job)
    runner.check_options()
    runner.pipeline()  # before images are listed
    with stop_signal.raising():
        try:
            job.is_started()  # now, so that it is cancelled if this step is stopped while it lists the images
            data = _build(data_uri, flags, runner, fingerprint)
        except UnavailableError:
            raise  # the next attempt goes on with the job
        except BaseException:
            if job.cancel():  # one that may still run needs its files, and the next attempt goes on with it
                _delete(folder, job)
            raise
        _delete(folder, job)
        return data


def _build(data_uri: str, flags: Flags, runner: BeamRunner, fingerprint: str) -> Manifest:
    given = Flags(**vars(flags) | {name: _as_addresses(getattr(flags, name)) for name in _PATHS})
    return build_tfrecords.build(
        given.train_metadata,
        data_uri,
        eval_metadata=given.eval_metadata,
        labels_file=given.labels_file,
        eval_fraction=given.eval_fraction,
        options=build_tfrecords.ReadOptions.of(given),
        allow_missing_classes=given.allow_missing_classes,
        max_duplicates_across_splits=given.max_duplicates_across_splits,
        runner=runner,
        fingerprint=fingerprint,
    )


def _delete(folder: str, job: DataflowJob) -> None:
    """Deletes the job's files. First the one without which its results are not used: a kill may leave others."""
    try:
        storage.delete(beam_runner.marker(job.folder))
        storage.delete_dir(folder)
    except (UserError, OSError) as error:
        _log.warning("Files of the job are left in %s: %s", folder, error)


def _completed(options: DataflowOptions, run: Mapping[str, str]) -> DataflowOptions:
    """The options with what the run says.

    Raises:
        FlagError: the region is not known.
    """
    region = options.region or run["location"]
    if not region:
        raise FlagError(
            "It is not known in which region Dataflow is to run", expected="--build_region, outside of Vertex AI"
        )
    return replace(options, region=region, service_account=options.service_account or run["service_account"])


def _words(project: str, name: str, folder: str, encryption_key: str) -> Iterator[str]:
    """Beam's options that depend on the run."""
    yield f"--project={project}"
    yield f"--job_name={name}"
    for option in ("temp_location", "staging_location"):
        yield f"--{option}={storage.join(folder, 'temp')}"
    # The workers' image is that of the step: nothing is staged for them, nor are its packages listed, which takes pip.
    yield "--sdk_location=container"
    yield "--experiments=disable_logging_submission_environment"
    if encryption_key:
        yield f"--dataflow_kms_key={encryption_key}"
    for key, value in json.loads(os.environ.get(_RUN_LABELS_VARIABLE) or "{}").items():
        yield f"--labels={key}={value}"  # by which costs are reported
    if address := client.endpoint():
        yield f"--dataflow_endpoint={address}"
        if client.is_local(address):
            yield "--no_auth"


def _as_addresses(paths: str | None) -> str | None:
    """Paths with their places below /gcs/ as addresses: the workers have no such mount."""
    if not paths:
        return paths
    return ",".join(
        storage.canonical(path) if path.startswith(storage.GCS_MOUNT) else path for path in split_metadata(paths)
    )
