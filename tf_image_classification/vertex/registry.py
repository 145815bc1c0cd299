"""Which model is in service, and putting another in its place: the Vertex AI Model Registry.

The version in service is the one with the alias `default`. A version is found again by the digest of its model, which
is one of its labels, so that each step of putting it in service can be taken again, and a repeated or half-done call
goes on where it stopped.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from google.api_core import exceptions
from google.cloud import aiplatform_v1 as vertex

from tf_image_classification import model_folder, storage
from tf_image_classification.errors import FlagError, UserError
from tf_image_classification.promotion.champion import InService
from tf_image_classification.promotion.google_errors import RETRY, api_retry, translate_api_errors
from tf_image_classification.vertex import evaluations
from tf_image_classification.vertex.client import ROLE, SERVICE, client_options, result_of
from tf_image_classification.vertex.endpoint import Endpoint

_log = logging.getLogger(__name__)

_NAME = re.compile(r"projects/[^/]+/locations/([^/]+)/models/[^/@]+")
_JOB = re.compile(r"projects/[^/]+/locations/[^/]+/pipelineJobs/[^/]+")
_DEFAULT = "default"
# The prebuilt TensorFlow containers want the folder that holds saved_model.pb.
_SAVED_MODEL = f"/{model_folder.SAVED_MODEL}"


class ReplacedError(UserError):
    """Another model was put in service meanwhile."""


def in_service(name: str) -> InService | None:
    """The version in service, projects/P/locations/L/models/ID@VERSION, of a model of that name; None when there is no
    such model yet.

    Raises:
        FlagError: it is no such name, or the version was not made by this project.
        ServiceError: the service refuses.
    """
    model = _Model(name)
    with translate_api_errors(SERVICE, f"look up the model {name}", ROLE):
        found = model.default()
    return model.registered(found) if found else None


def register(
    name: str,
    folder: str,
    *,
    facts: dict[str, Any],
    metrics: dict[str, Any],
    reason: str,
    run: str,
    serving_image: str,
    instead_of: str,
    machine_type: str,
    endpoint: str = "",
) -> InService:
    """Puts a model in service as a version of projects/P/locations/L/models/ID. Called again, it goes on where it
    stopped.

    Traffic and the alias are moved last, one right after the other: uploading and deploying take minutes and may fail,
    and until then the old version serves. The first version of a model is its default from the start: Vertex AI knows
    no model without one.

    Args:
        folder: the model folder, on gs:// or under /gcs/.
        facts: its model.json.
        metrics: its evaluation's metrics.json.
        reason: the gate's; becomes the version's description.
        run: the pipeline run that made it: a name, or projects/P/locations/L/pipelineJobs/ID; or ''.
        serving_image: the container that serves it.
        instead_of: .../models/ID@VERSION, which must still be in service; '' when no model was.
        endpoint: projects/P/locations/L/endpoints/ID, where all else is undeployed; '' deploys nothing.
        machine_type: of the endpoint's replica.

    Raises:
        ReplacedError: another version is in service than `instead_of`.
        FlagError: the endpoint is not there, or the service does not take what was given.
        ServiceError: the service refuses, or fails.
    """
    model, folder = _Model(name), _on_gcs(folder)
    serving = Endpoint(endpoint) if endpoint else None
    uploaded = vertex.Model(
        display_name=name.rpartition("/")[2],
        artifact_uri=folder + _SAVED_MODEL,
        container_spec=vertex.ModelContainerSpec(image_uri=serving_image),
        version_description=reason,
        labels={
            "digest": _label(facts["digest"]),
            "data": _label(facts["data_fingerprint"]),
            "run": _label(run.rpartition("/")[2]),
        },
        pipeline_job=run if _JOB.fullmatch(run) else "",
    )

    def allowed() -> None:
        model.check_in_service(instead_of, uploaded)

    def ours() -> None:
        model.check_in_service(version.name, uploaded)

    with translate_api_errors(SERVICE, f"upload a version of {name}", ROLE):
        version = model.version(uploaded, allowed)
    with translate_api_errors(SERVICE, f"import the evaluation of {version.name}", ROLE):
        evaluations.attach(model.client, version.name, metrics, run)
    try:
        if serving:
            serving.deploy(version.name, machine_type, allowed)
        with translate_api_errors(SERVICE, f"make {version.name} the default", ROLE):
            allowed()
            if serving:
                serving.serve(version.name, allowed)
            model.client.merge_version_aliases(name=version.name, version_aliases=[_DEFAULT], retry=RETRY, timeout=60)
            # The API has no compare-and-swap: of two runs at the same moment, the one that moved the alias last has the
            # traffic too.
            ours()
            if serving:
                serving.serve(version.name, ours)
    except ReplacedError:
        if serving:
            serving.undeploy_idle()
        raise
    _log.info("In service: %s", version.name)
    if serving:
        serving.undeploy_idle()
    return version


class _Model:
    """A model of the registry, whether it is there or not."""

    def __init__(self, name: str) -> None:
        found = _NAME.fullmatch(name)
        if not found:
            raise FlagError(
                "This is not the name of a registered model", received=name, expected="projects/P/locations/L/models/ID"
            )
        self.name = name
        with translate_api_errors(SERVICE, "sign in"):
            self.client = vertex.ModelServiceClient(**client_options(found[1]))

    def default(self) -> vertex.Model | None:
        try:
            return self.client.get_model(name=self.name, retry=RETRY)
        except exceptions.NotFound:
            return None

    def registered(self, version: vertex.Model) -> InService:
        name = f"{self.name}@{version.version_id}"
        if not version.artifact_uri.endswith(_SAVED_MODEL):
            raise FlagError(
                "The version in service was not registered by this project",
                received=f"{name}, made from {version.artifact_uri or 'no folder'}",
                expected=f"a folder whose name ends in {_SAVED_MODEL}",
                hint="Name another model, or one that is not there yet.",
            )
        return InService(name, version.artifact_uri.removesuffix(_SAVED_MODEL))

    def check_in_service(self, expected: str, wanted: vertex.Model) -> None:
        """Makes sure that the version in service is the expected one, or the wanted one itself."""
        found = self.default()
        if found and _is_same(found, wanted):
            return
        version = found.version_id if found else ""
        if version != expected.rpartition("/")[2].partition("@")[2]:
            raise ReplacedError(
                "Another version of the model was put in service while this run went on: its model "
                f"was not compared with {self.name}",
                received=f"{self.name}@{version}" if found else "no model",
                expected=expected or "no model",
                hint=(
                    "This run's model was left out. Start the run again: it compares with the "
                    "version that is in service now."
                ),
            )

    def version(self, wanted: vertex.Model, allowed: Callable[[], None]) -> InService:
        """The version that is the wanted one, uploaded unless it is there."""

        def find_or_upload() -> vertex.Model:
            allowed()
            found = self._same_as(wanted)
            if found:
                return found[0]
            request = vertex.UploadModelRequest(parent=self.name.rpartition("/models/")[0], model=wanted)
            if self.default():
                request.parent_model = self.name
            else:
                request.model_id = self.name.rpartition("/")[2]
            _log.info("Uploading %s as a version of %s", wanted.artifact_uri, self.name)
            made = result_of(self.client.upload_model(request, timeout=60), f"upload a version of {self.name}")
            return self.client.get_model(name=f"{self.name}@{made.model_version_id}", retry=RETRY)

        # A name that has just been taken is another run's, or ours, from a try whose answer was lost: the next look
        # tells.
        made = api_retry(also=(exceptions.Conflict,))(find_or_upload)()
        first, *again = self._same_as(wanted) or [made]
        for repeated in again:  # a try whose answer was lost was carried out after all
            if (
                repeated.artifact_uri == wanted.artifact_uri
                and not repeated.version_aliases
                and not repeated.deployed_models
            ):
                name = f"{self.name}@{repeated.version_id}"
                result_of(self.client.delete_model_version(name=name, timeout=60), f"delete {name}")
        return self.registered(first)

    def _same_as(self, wanted: vertex.Model) -> list[vertex.Model]:
        """The versions that are the wanted one, the oldest first."""
        request = vertex.ListModelVersionsRequest(name=self.name, filter=f'labels.digest="{wanted.labels["digest"]}"')
        try:
            found = [
                version
                for version in self.client.list_model_versions(request, retry=RETRY)
                if _is_same(version, wanted)
            ]
        except exceptions.NotFound:
            return []
        return sorted(found, key=lambda version: int(version.version_id))


def _is_same(version: vertex.Model, wanted: vertex.Model) -> bool:
    """Whether a version is the wanted one: made from its folder, or from another whose model.json has the same digest.

    The label alone does not tell: a version may show labels of the model that it belongs to.
    """
    if version.labels.get("digest") != wanted.labels["digest"]:
        return False
    if version.artifact_uri == wanted.artifact_uri:
        return True
    try:
        facts = model_folder.read_facts(version.artifact_uri.removesuffix(_SAVED_MODEL))
    except (UserError, OSError):
        return False
    return _label(str(facts.get("digest"))) == wanted.labels["digest"]


def _on_gcs(folder: str) -> str:
    if folder.startswith(storage.GCS_MOUNT):
        folder = storage.GCS_SCHEME + folder.removeprefix(storage.GCS_MOUNT)
    if not storage.is_gcs(folder):
        raise FlagError(
            "Vertex AI registers models from Cloud Storage only", received=folder, expected="gs://BUCKET/FOLDER"
        )
    return folder.rstrip("/")


def _label(value: str) -> str:
    """The form that values of labels have."""
    return re.sub(r"[^a-z0-9_-]", "-", value.lower())[:63]
