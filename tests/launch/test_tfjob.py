"""A TFJob's pods take over what --kubernetes gave to the launching pod, and nothing of KFP's or Argo's."""

from __future__ import annotations

import pytest

from tests.standin import tfjobs
from tf_image_classification.launch import tfjob
from tf_image_classification.launch.job import ClusterShape, Job


def manifest(**shape: object) -> dict:
    shape = {"replicas": 3, "image": "registry/train:1", **shape}
    job = Job("train-1a2b", ["python", "-m", "task"], ClusterShape(**shape), "gs://bucket/folder")
    made = tfjob.manifest(job, tfjobs.TFJobs().launching_pod)
    tfjobs.check(made)
    return made


def test_the_pods_have_the_settings_of_the_step():
    replicas = manifest()["spec"]["tfReplicaSpecs"]
    assert {kind: one["replicas"] for kind, one in replicas.items()} == {"Chief": 1, "Worker": 2}
    assert {one["restartPolicy"] for one in replicas.values()} == {"ExitCode"}
    spec = replicas["Worker"]["template"]["spec"]
    (container,) = spec.pop("containers")
    assert spec == {
        "serviceAccountName": "default-editor",
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "registry"}],
        "securityContext": {"fsGroup": 1000},
        "terminationGracePeriodSeconds": 60,
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "photos"}},
            {"name": "keys", "secret": {"secretName": "keys"}},
        ],
    }
    assert container == {
        "name": "tensorflow",
        "image": "registry/train:1",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "task"],
        "resources": {},
        "volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in ("data", "keys")],
        "env": [
            {"name": "HF_HOME", "value": "/data/hub"},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key"}}},
        ],
    }


def test_what_computes_has_the_accelerators():
    made = manifest(parameter_servers=1, evaluator=True, cpu="8", memory="32G", accelerator="nvidia.com/gpu:2")
    replicas = made["spec"]["tfReplicaSpecs"]
    assert {kind: one["replicas"] for kind, one in replicas.items()} == {
        "Chief": 1,
        "Worker": 3,
        "PS": 1,
        "Evaluator": 1,
    }
    resources = {kind: one["template"]["spec"]["containers"][0]["resources"] for kind, one in replicas.items()}
    rest = {"cpu": "8", "memory": "32G"}
    assert (
        resources["Worker"]
        == resources["Evaluator"]
        == dict.fromkeys(("limits", "requests"), rest | {"nvidia.com/gpu": "2"})
    )
    assert resources["Chief"] == resources["PS"] == dict.fromkeys(("limits", "requests"), rest)


def test_the_job_is_deleted_with_the_run_and_not_with_an_attempt():
    owner = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "name": "training-x",
        "uid": "uid-of-the-workflow",
    }
    assert manifest()["metadata"]["ownerReferences"] == [owner]


def test_what_only_vertex_ai_has_is_warned_of(caplog):
    manifest(network="net", spot=True)
    assert "--network, --spot: no effect on Kubernetes" in caplog.text


@pytest.mark.parametrize("change", [{"name": "Train"}, {"name": "1-train"}, {"name": "t" * 60}, {"labls": {}}])
def test_the_stand_in_refuses_what_the_api_does(change):
    made = manifest()
    with pytest.raises(tfjobs.StatusError):
        tfjobs.check({**made, "metadata": {**made["metadata"], **change}})
