"""The file of --kubernetes: pod settings in Kubernetes's words, as kfp-kubernetes passes them on."""

from __future__ import annotations

import textwrap

import pytest
import yaml

from images import catalog
from pipelines import kubernetes_file
from pipelines.compile import compile_pipeline
from pipelines.definition import Options
from tests import documents
from tf_image_classification.errors import FlagError

SETTINGS = """
volumes:
  - name: photos
    persistentVolumeClaim: {claimName: photos-claim}
  - name: google-key
    secret: {secretName: trainer-key}
env:
  - name: GOOGLE_APPLICATION_CREDENTIALS
    value: /var/secrets/google/key.json
  - name: AWS_ACCESS_KEY_ID
    valueFrom: {secretKeyRef: {name: minio, key: accesskey}}
volumeMounts:
  - {name: photos, mountPath: /mnt/photos/}
  - {name: google-key, mountPath: /var/secrets/google}
nodeSelector: {disk: ssd}
tolerations:
  - {key: pool, value: training, effect: NoSchedule}
imagePullSecrets: [{name: registry}]
imagePullPolicy: IfNotPresent
activeDeadlineSeconds: 3600
steps:
  train:
    env:
      - name: AWS_ACCESS_KEY_ID
        valueFrom: {secretKeyRef: {name: minio, key: trainer, optional: true}}
    nodeSelector: {cloud.google.com/gke-accelerator: nvidia-tesla-t4}
    tolerations:
      - {key: nvidia.com/gpu, operator: Exists, effect: NoExecute, tolerationSeconds: 60}
    activeDeadlineSeconds: 86400
"""


@pytest.fixture
def read(tmp_path):
    """Reads settings from a file, with what `replaced` names replaced."""

    def settings(text: str, *, notify: bool = False):
        path = tmp_path / "kubernetes.yaml"
        path.write_text(textwrap.dedent(text))
        return kubernetes_file.read(str(path), notify=notify)

    return settings


def compiled(settings, tmp_path, **options) -> list[dict]:
    output = tmp_path / "pipeline.yaml"
    images = {step: f"registry.test/{image}:1" for step, image in catalog.OF_STEP.items()}
    compile_pipeline(str(output), Options(images=images, kubernetes=settings, **options))
    return list(yaml.safe_load_all(output.read_text()))


def test_every_step_has_the_settings_of_all_and_its_own_win(read, tmp_path):
    settings = read(SETTINGS, notify=True)
    spec, platform = compiled(settings, tmp_path, notify="projects/p/topics/t")
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors.keys() == spec["deploymentSpec"]["executors"].keys()  # register in conditions, notify at the end
    assert "exec-register" in executors and "exec-notify" in executors
    for executor in spec["deploymentSpec"]["executors"].values():
        (variable,) = executor["container"]["env"]
        assert variable == {"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": "/var/secrets/google/key.json"}
    gate, train = executors["exec-gate"], executors["exec-train"]
    for step in (gate, train):
        assert [(one["constant"], one["mountPath"]) for one in step["pvcMount"]] == [("photos-claim", "/mnt/photos")]
        (secret,) = step["secretAsVolume"]
        assert (secret["secretName"], secret["mountPath"]) == ("trainer-key", "/var/secrets/google")
        assert [one["secretName"] for one in step["imagePullSecret"]] == ["registry"]
        assert step["imagePullPolicy"] == "IfNotPresent"
    for step, key in ((gate, "accesskey"), (train, "trainer")):
        (reference,) = step["secretAsEnv"]
        assert reference["secretName"] == "minio"
        assert reference["keyToEnv"] == [{"envVar": "AWS_ACCESS_KEY_ID", "secretKey": key}]
    assert gate["nodeSelector"]["labels"] == {"disk": "ssd"}
    assert train["nodeSelector"]["labels"] == {"disk": "ssd", "cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}
    pool = {"key": "pool", "operator": "Equal", "value": "training", "effect": "NoSchedule"}
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": "60"}
    assert gate["tolerations"] == [pool] and train["tolerations"] == [pool, gpu]
    assert gate["activeDeadlineSeconds"] == "3600" and train["activeDeadlineSeconds"] == "86400"
    # Drivers before KFP 2.16 do not know this field, and refuse the step.
    assert "optional" not in gate["secretAsEnv"][0] and train["secretAsEnv"][0]["optional"] is True


@pytest.mark.parametrize(
    ("text", "received", "expected"),
    [
        ("toleration: []", "toleration (", "Did you mean tolerations?"),
        ("serviceAccountName: trainer", "serviceAccountName (", "Use --service_account"),
        ("steps: {trian: {imagePullPolicy: Never}}", "trian (", "Did you mean train?"),
        ("steps: {notify: {imagePullPolicy: Never}}", "notify (", "with --notify only"),
        ("steps: {train: {volumes: []}}", "volumes (", "volumeMounts"),
        ("steps: train", "train (", "settings by step"),
        ("nodeSelector: {ssd: true}", "True (", "in quotes"),
        ("nodeSelector: {'a b': c}", "a b (", "DOMAIN/NAME"),
        ("imagePullSecrets: [registry]", "registry (", "a mapping with the keys name"),
        ("imagePullSecrets: {name: registry}", "{'name': 'registry'} (", "a list"),
        ("imagePullPolicy: ifnotpresent", "ifnotpresent (", "Did you mean IfNotPresent?"),
        ("activeDeadlineSeconds: 1h", "'1h' (", "a whole number of seconds >= 1"),
        ("activeDeadlineSeconds: true", "True (", "a whole number of seconds >= 1"),
        ("tolerations: [{effect: NoRun}]", "NoRun (", "NoSchedule"),
        ("tolerations: [{key: a, operator: Exists, value: b}]", "b (", "takes no value"),
        ("tolerations: [{effect: NoSchedule}]", "NoSchedule", "operator: Exists"),
        ("tolerations: [{key: a, tolerationSeconds: 5}]", "5 (", "effect: NoExecute"),
        ("env: [{name: A}]", "A (", "secretKeyRef"),
        ("env: [{name: A, value: 1}]", "1 (", "in quotes"),
        ("env: [{name: A, value: a}, {name: A, value: b}]", "A (", "given twice"),
        ("env: [{name: A, valueFrom: {secretKeyRef: {name: s}}}]", "name (", "key is missing"),
        ("env: [{name: A, valueFrom: {configMapKeyRef: {name: s}}}]", "configMapKeyRef (", "secretKeyRef"),
        ("env: [{name: AWS_SECRET_ACCESS_KEY, value: abc}]", "AWS_SECRET_ACCESS_KEY (", "kubectl create secret"),
        ("env: [{name: GOOGLE_APPLICATION_CREDENTIALS, value: /k.json}]", "/k.json (", "a mounted key file"),
        ("volumeMounts: [{name: a, mountPath: /mnt/a}]", "a (", "unknown volume"),
        ("volumes: [{name: a, secret: {secretName: s}}]", "a (", "no step's volumeMounts"),
        ("[1]", "[1] (", "a mapping"),
    ],
)
def test_what_is_unknown_invalid_or_without_effect_is_refused(read, text, received, expected):
    with pytest.raises(FlagError) as refused:
        read(text)
    message = str(refused.value)
    assert message.startswith("--kubernetes: ") and received in message and expected in message
    assert "kubernetes.yaml, line 1" in message


@pytest.mark.parametrize(
    ("mount", "received", "expected"),
    [
        ("{name: data, mountPath: mnt}", "'mnt'", "an absolute path"),
        ("{name: data, mountPath: /mnt/../etc}", "/mnt/../etc", "without .."),
        ("{name: data, mountPath: /gcs/}", "/gcs", "KFP mounts its own folder there"),
        ("{name: data, mountPath: /}", "/", "KFP mounts its own folder there"),
        ("{name: data, mountPath: /mnt, subPath: ../a}", "'../a'", "without .."),
        ("{name: key, mountPath: /key, subPath: a}", "a (", "KFP mounts the whole Secret"),
        ("{name: dat, mountPath: /mnt}", "dat (", "Did you mean data?"),
    ],
)
def test_a_mount_that_kubernetes_or_kfp_would_refuse_is_refused_with_its_line(read, mount, received, expected):
    text = f"""\
    volumes:
    - {{name: data, persistentVolumeClaim: {{claimName: data}}}}
    - {{name: key, secret: {{secretName: key}}}}
    volumeMounts:
    - {{name: key, mountPath: /other}}
    - {mount}
    """
    with pytest.raises(FlagError) as refused:
        read(text)
    assert received in str(refused.value) and expected in str(refused.value)
    assert "kubernetes.yaml, line 6, volumeMounts[1]" in str(refused.value)


def test_a_claim_is_mounted_once_per_step_as_kfp_names_volumes_by_claims(read):
    text = """
    volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
    volumeMounts: [{name: data, mountPath: /mnt/a}]
    steps: {train: {volumeMounts: [{name: data, mountPath: /mnt/b}]}}
    """
    with pytest.raises(FlagError, match="the step train has two mounts of one name"):
        read(text)


def test_the_example_of_the_documentation_compiles(read, tmp_path):
    page = documents.read("docs/kubeflow.md")
    (example,) = documents.blocks(documents.section(page, "Credentials, volumes and nodes of the steps"), "yaml")
    spec, platform = compiled(read(example), tmp_path)
    assert spec["deploymentSpec"]["executors"].keys() == set(
        platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    )


def test_the_settings_that_the_page_gives_for_s3_are_valid(read):
    (text,) = documents.blocks(documents.section(documents.read("docs/kubeflow.md"), "s3://"), "yaml")
    names = [variable.name for variable in read(text)["train"].variables]
    assert names == ["AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
