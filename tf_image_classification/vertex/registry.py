"""The Vertex AI Model Registry as the store of the champion: which version is in service, and promoting another one.

The version in service is the one with the alias `default`. A version is found again by the digest of its model, which
is one of its labels: each step of a promotion checks for its result before it does anything, so that a call that is
repeated, or was killed half-way, continues where it stopped.
"""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from google.api_core import exceptions
from google.cloud import aiplatform_v1 as vertex

from tf_image_classification import evaluation_folder, model_folder, storage
from tf_image_classification.errors import DataError, FlagError, UserError
from tf_image_classification.promotion.champion import InService
from tf_image_classification.promotion.google_errors import RETRY, api_retry, translate_api_errors
from tf_image_classification.vertex import evaluations, infra_validation
from tf_image_classification.vertex.client import ROLE, SERVICE, client_options, wait_for
from tf_image_classification.vertex.endpoint import Endpoint

_log = logging.getLogger(__name__)

_NAME = re.compile(r"projects/[^/]+/locations/([^/]+)/models/[^/@]+")
_JOB = re.compile(r"projects/[^/]+/locations/[^/]+/pipelineJobs/[^/]+")
_DEFAULT = "default"
# The prebuilt TensorFlow containers expect the folder that has saved_model.pb in it.
_SAVED_MODEL = f"/{model_folder.SAVED_MODEL}"


class ReplacedError(UserError):
    """Another version was promoted since this run compared its model with the one in service."""


def in_service(name: str) -> InService | None:
    """The version in service of a model; None if the model does not exist yet.

    Args:
        name: projects/P/locations/L/models/ID.

    Raises:
        FlagError: the name is invalid, or the version was not registered by this project.
        ServiceError: the service refuses.
    """
    model = _RegisteredModel(name)
    with translate_api_errors(SERVICE, f"look up the model {name}", ROLE):
        version = model.default_version()
    return model.as_in_service(version) if version else None


def register(
    name: str,
    folder: str,
    *,
    metrics: dict[str, Any],
    reason: str,
    run: str,
    serving_image: str,
    compared_with: str,
    machine_type: str,
    endpoint: str = "",
) -> InService:
    """Uploads a model as a version of a registered model, and promotes it: `default` alias and endpoint traffic.

    Mutates the Model Registry and the endpoint. Idempotent: called again, it continues where it stopped, and changes
    nothing if the version is in service. Uploading and deploying, which take minutes and may fail, are first; until
    then the previous version serves. The first version of a model is its default from its upload on: Vertex AI has no
    model without a default. Before all of this the folder is verified, and the model asked, see `infra_validation`.

    Args:
        name: projects/P/locations/L/models/ID; created if it does not exist.
        folder: the model folder, on gs:// or below /gcs/.
        metrics: content of its evaluation's metrics.json.
        reason: of the gate's decision; becomes the version's description.
        run: the pipeline run that trained it: a name, or projects/P/locations/L/pipelineJobs/ID; or ''.
        serving_image: URI of the container that serves it.
        compared_with: .../models/ID@VERSION, which must still be in service; '' if no version was.
        machine_type: of the endpoint's one replica.
        endpoint: projects/P/locations/L/endpoints/ID, from which all other versions are undeployed; '' deploys nothing.

    Raises:
        ReplacedError: another version than `compared_with` is in service; what this call deployed is undeployed.
        UserError: the folder is not as exported, not the one evaluated, or changes; the serving container fails.
        FlagError: the endpoint was not found, or the service rejects an argument.
        ServiceError: the service refuses, or fails.
    """
    model, folder = _RegisteredModel(name), _on_gcs(folder)
    serving, objects = Endpoint(endpoint) if endpoint else None, list(storage.walk(folder))
    candidate = _verified_candidate(name, folder, metrics, reason, run, serving_image)
    check_unchanged = functools.partial(model.check_default, compared_with, candidate)

    with translate_api_errors(SERVICE, f"upload a version of {name}", ROLE):
        version = model.find_or_upload(candidate, check_unchanged)
    _check_unchanged(folder, objects, version)
    with translate_api_errors(SERVICE, f"import the evaluation of {version.name}", ROLE):
        evaluations.attach(model.client, version.name, metrics, run)
    route = functools.partial(serving.route_traffic, version.name, machine_type) if serving else None
    try:
        if serving:
            serving.deploy(version.name, machine_type, check_unchanged)
        check_promoted = functools.partial(model.check_default, version.name, candidate)
        _promote(model, version.name, route, check_unchanged, check_promoted)
    except ReplacedError:
        if serving:  # this version alone: another one without traffic may be about to be promoted
            serving.undeploy_without_traffic(version.name)
        raise
    _log.info("In service: %s", version.name)
    if serving:
        serving.undeploy_without_traffic()
    return version


def _check_unchanged(folder: str, objects: Sequence[storage.Stat], version: InService) -> None:
    """Checks that the objects that the service has copied are those that were verified."""
    if list(storage.walk(folder)) != objects:
        raise DataError(
            "The model folder was changed while it was registered",
            received=folder,
            hint=f"Delete {version.name}, which may hold other files than those that were verified.",
        )


def _verified_candidate(
    name: str, folder: str, metrics: dict[str, Any], reason: str, run: str, serving_image: str
) -> vertex.Model:
    """The message of the version to upload, of a folder that was verified; for arguments and errors see `register`."""
    with storage.temporary_dir() as temporary:
        model = model_folder.verify(folder, os.path.join(temporary, "model"))
        evaluation_folder.check_is_of(metrics, model.sha256)
        validation = infra_validation.check(model, serving_image)
    return vertex.Model(
        display_name=name.rpartition("/")[2],
        artifact_uri=folder + _SAVED_MODEL,
        container_spec=vertex.ModelContainerSpec(image_uri=serving_image),
        version_description=reason,
        labels={
            "digest": _label(model.digest),
            "sha256": _label(model.sha256),
            "data": _label(model.facts.get("data_fingerprint", "")),
            "run": _label(run.rpartition("/")[2]),
            "tensorflow": _label(infra_validation.exporting_version(model.facts)),
            "infra-validation": validation,
        },
        pipeline_job=run if _JOB.fullmatch(run) else "",
    )


def _promote(
    model: _RegisteredModel,
    version: str,
    route_traffic: Callable[[Callable[[], None]], None] | None,
    check_unchanged: Callable[[], None],
    check_promoted: Callable[[], None],
) -> None:
    """Moves the endpoint's traffic, then the alias `default`, to a version. Mutates both.

    The API has no compare-and-swap of an alias. So the alias is read again after it was moved, and traffic follows it
    once more: of two concurrent runs, the one that moved the alias last gets the traffic, too.

    Args:
        version: .../models/ID@VERSION.
        route_traffic: routes the endpoint's traffic to it, unless the check that it is given raises; None: no endpoint.
        check_unchanged: raises ReplacedError if neither the compared version nor this one is the default.
        check_promoted: raises ReplacedError if this version is not the default.
    """
    with translate_api_errors(SERVICE, f"make {version} the default", ROLE):
        check_unchanged()
        if route_traffic:
            route_traffic(check_unchanged)
        model.client.merge_version_aliases(name=version, version_aliases=[_DEFAULT], retry=RETRY, timeout=60)
        check_promoted()
        if route_traffic:
            route_traffic(check_promoted)


class _RegisteredModel:
    """A model of the registry, which may not exist yet.

    Args:
        name: projects/P/locations/L/models/ID.

    Raises:
        FlagError: the name is invalid.
        ServiceError: there are no credentials.
    """

    def __init__(self, name: str) -> None:
        found = _NAME.fullmatch(name)
        if not found:
            raise FlagError("Invalid model name", received=name, expected="projects/P/locations/L/models/ID")
        self.name = name
        with translate_api_errors(SERVICE, "sign in"):
            self.client = vertex.ModelServiceClient(**client_options(found[1]))

    def default_version(self) -> vertex.Model | None:
        """The version with the alias `default`; None if the model does not exist."""
        try:
            return self.client.get_model(name=self.name, retry=RETRY)
        except exceptions.NotFound:
            return None

    def as_in_service(self, version: vertex.Model) -> InService:
        """Name and model folder of a version.

        Raises:
            FlagError: its artifact is no model folder of this project.
        """
        name = self._name_of(version)
        if not version.artifact_uri.endswith(_SAVED_MODEL):
            raise FlagError(
                "The version in service was not registered by this project",
                received=f"{name}, with the artifact {version.artifact_uri or '(none)'}",
                expected=f"a folder whose name ends in {_SAVED_MODEL}",
                hint="Use another model name, or a new one.",
            )
        return InService(name, version.artifact_uri.removesuffix(_SAVED_MODEL))

    def check_default(self, expected: str, candidate: vertex.Model) -> None:
        """Checks that the default version is the expected one, or the candidate itself.

        Args:
            expected: .../models/ID@VERSION; '' for no version.

        Raises:
            ReplacedError: it is another one.
        """
        default = self.default_version()
        if default and _is_same(default, candidate):
            return
        number = default.version_id if default else ""
        if number != expected.rpartition("/")[2].partition("@")[2]:
            raise ReplacedError(
                "Another version of the model was promoted during this run: its model was not compared with "
                f"the current one of {self.name}",
                received=self._name_of(default) if default else "no model",
                expected=expected or "no model",
                hint="This run's model was not promoted. Start the run again: it compares with the current version.",
            )

    def find_or_upload(self, candidate: vertex.Model, check: Callable[[], None]) -> InService:
        """The version that is the same model as the candidate; uploads it if there is none. Mutates the registry.

        Idempotent: each attempt checks for the version first. If an attempt whose response was lost was carried out
        after the next one had checked, the registry has the version twice: the younger ones are deleted.

        Args:
            candidate: the version to upload.
            check: called before each attempt; raises if nothing must be uploaded any more.
        """

        def attempt() -> vertex.Model:
            check()
            existing = self._versions_of(candidate)
            return existing[0] if existing else self._upload(candidate)

        # 409: the model's name was taken meanwhile, by another run or by an attempt whose response was lost. The next
        # attempt finds out.
        found = api_retry(also=(exceptions.Conflict,))(attempt)()
        oldest, *duplicates = self._versions_of(candidate) or [found]
        for duplicate in duplicates:
            is_unused = not duplicate.version_aliases and not duplicate.deployed_models
            if is_unused and duplicate.artifact_uri == candidate.artifact_uri:
                name = self._name_of(duplicate)
                wait_for(self.client.delete_model_version(name=name, timeout=60), f"delete {name}")
        return self.as_in_service(oldest)

    def _upload(self, candidate: vertex.Model) -> vertex.Model:
        request = vertex.UploadModelRequest(parent=self.name.rpartition("/models/")[0], model=candidate)
        if self.default_version():
            request.parent_model = self.name
        else:
            request.model_id = self.name.rpartition("/")[2]
        _log.info("Uploading %s as a version of %s", candidate.artifact_uri, self.name)
        uploaded = wait_for(self.client.upload_model(request, timeout=60), f"upload a version of {self.name}")
        return self.client.get_model(name=f"{self.name}@{uploaded.model_version_id}", retry=RETRY)

    def _versions_of(self, candidate: vertex.Model) -> list[vertex.Model]:
        """The versions that are the same model as the candidate, oldest first."""
        labels_filter = f'labels.digest="{candidate.labels["digest"]}"'
        request = vertex.ListModelVersionsRequest(name=self.name, filter=labels_filter)
        try:
            versions = list(self.client.list_model_versions(request, retry=RETRY))
        except exceptions.NotFound:
            return []
        same = [version for version in versions if _is_same(version, candidate)]
        return sorted(same, key=lambda version: int(version.version_id))

    def _name_of(self, version: vertex.Model) -> str:
        return f"{self.name}@{version.version_id}"


def _is_same(version: vertex.Model, candidate: vertex.Model) -> bool:
    """Whether a version is the candidate's model: uploaded from its folder, or from one with the same digest.

    The label alone is not enough: a version may show labels of the model that it belongs to.
    """
    if version.labels.get("digest") != candidate.labels["digest"]:
        return False
    if version.artifact_uri == candidate.artifact_uri:
        return True
    try:
        facts = model_folder.read_facts(version.artifact_uri.removesuffix(_SAVED_MODEL))
    except (UserError, OSError):
        return False
    return _label(str(facts.get("digest"))) == candidate.labels["digest"]


def _on_gcs(folder: str) -> str:
    """The gs:// path of a folder on gs:// or below /gcs/."""
    if folder.startswith(storage.GCS_MOUNT):
        folder = storage.GCS_SCHEME + folder.removeprefix(storage.GCS_MOUNT)
    if not storage.is_gcs(folder):
        raise FlagError(
            "Vertex AI registers models from Cloud Storage only", received=folder, expected="gs://BUCKET/FOLDER"
        )
    return folder.rstrip("/")


def _label(value: str) -> str:
    """A label's value: at most 63 lower-case letters, digits, hyphens and underscores."""
    return re.sub(r"[^a-z0-9_-]", "-", value.lower())[:63]
