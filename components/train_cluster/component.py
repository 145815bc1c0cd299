"""train on a cluster: launches the tasks that train, and hands their model on."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def train(
    data: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    logs: dsl.Output[dsl.Artifact],
    curves: dsl.Output[dsl.HTML],
    augmentation_samples: dsl.Output[dsl.HTML],
    cluster: str,
    project: str,
    location: str,
    service_account: str,
    network: str,
    encryption_key: str,
    pipeline_root: str,
    checkpoint_version: str,
    estimator_version: str,
    # flags: begin (written by `make generate`)
    model_dir: str = "",
    recipe: str = "",
    checkpoint_path: str = "",
    weights_dir: str = "",
    billing_project: str = "",
    batch_size: int = 1,
    train_steps: int = 20,
    image_size: int = 299,
    eval_freq: int = 5,
    eval_throttle_secs: int = 120,
    debug: bool = False,
    shard_streams: int = 1,
    augmentation: str = "original",
    crop_area: str = "",
    crop_aspect: str = "",
    mixup: float = 0.0,
    cutmix: float = 0.0,
    model_name: str = "small",
    estimator: str = "",
    packages: str = "",
    seed: int = -1,
    save_checkpoints_secs: float = 600.0,
    precision: str = "",
    mixed_precision: bool = False,
    profile: int = -1,
    jit_compile: bool = False,
    weight_decay: float = 4e-05,
    optimizer: str = "rmsprop",
    clip_norm: float = -1.0,
    ema_decay: float = 0.0,
    adadelta_rho: float = 0.95,
    adagrad_initial_accumulator_value: float = 0.1,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.999,
    opt_epsilon: float = 1.0,
    ftrl_learning_rate_power: float = -0.5,
    ftrl_initial_accumulator_value: float = 0.1,
    ftrl_l1: float = 0.0,
    ftrl_l2: float = 0.0,
    momentum: float = 0.9,
    rmsprop_momentum: float = 0.9,
    rmsprop_decay: float = 0.9,
    learning_rate_decay_type: str = "exponential",
    learning_rate: float = 0.01,
    end_learning_rate: float = 0.0001,
    learning_rate_decay_factor: float = 0.94,
    warmup_fraction: float = 0.0,
    learning_rate_scales: str = "",
    label_smoothing: float = 0.0,
    num_epochs_per_decay: float = 2.0,
    sync_replicas: bool = False,
    replicas_to_aggregate: int = 1,
    batch_norm: str = "auto",
    sync_batch_norm: bool = False,
    head_fraction: float = 0.0,
    head_learning_rate: float = -1.0,
    trainable_scopes: str = "",
    checkpoint_exclude_scopes: str = "",
    class_weights: str = "",
    num_evals: int = -1,
    export: str = "last",
    export_metric: str = "",
    early_stopping_evals: int = -1,
    # flags: end
):
    """Trains a network on the machines of a cluster, with the inputs and outputs of the train step.

    On Vertex AI it starts a custom job, on Kubeflow a TFJob. Retried, it goes on with the job that it has started;
    stopped, as when the run is cancelled, it cancels the job.

    Args:
        data: TFRecord shards and manifest, from build_tfrecords, where all machines can read them.
        model: model folder: saved_model/, model.keras, labels.txt and model.json.
        logs: TensorBoard event files.
        curves: page with plots of loss, metrics and learning rate over the global step.
        augmentation_samples: page with some training images beside what the augmentation makes of them.
        cluster: tasks, machines and image, as `python -m pipelines compile --replicas` writes them, in JSON.
        project: of the run on Vertex AI, by the placeholder pipeline_google_cloud_project_id; '' elsewhere.
        location: of the run on Vertex AI, by the placeholder pipeline_google_cloud_location; '' elsewhere.
        service_account: of the tasks on Vertex AI, by the placeholder pipeline_service_account; '' for its own.
        network: of the tasks on Vertex AI, by the placeholder pipeline_network; '' for none.
        encryption_key: of Vertex AI's storage, by the placeholder pipeline_encryption_key_name; '' for none.
        pipeline_root: checkpoints are saved in checkpoints/ under it, unless model_dir is set.
        checkpoint_version: version of the content of checkpoint_path, from resolve; part of the cache key.
        estimator_version: version of the code of estimator, from resolve; part of the cache key; '' without one.
    """
    arguments = dict(locals())
    from tf_image_classification import cluster_step, command_line, recipes, training_run

    with command_line.reporting_errors():
        metrics = cluster_step.train(
            data.uri,
            recipes.for_step("train", arguments),
            training_run.TrainOutputs(model.path, logs.path, curves.path, augmentation_samples.path),
            cluster=cluster,
            run={
                "project": project,
                "location": location,
                "service_account": service_account,
                "network": network,
                "encryption_key": encryption_key,
            },
            pipeline_root=pipeline_root,
            output_uri=model.uri,
            checkpoint_version=checkpoint_version,
            estimator_version=estimator_version,
        )
    model.metadata.update({"framework": "TensorFlow", **metrics})
