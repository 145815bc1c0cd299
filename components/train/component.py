"""train: TFRecord shards -> model."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def train(
    data: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    logs: dsl.Output[dsl.Artifact],
    curves: dsl.Output[dsl.HTML],
    augmentation_samples: dsl.Output[dsl.HTML],
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
    """Trains a network from scratch or from a pretrained checkpoint, and exports it as a SavedModel.

    An interrupted training with the same inputs is resumed from its last checkpoint.

    Args:
        data: TFRecord shards and manifest, from build_tfrecords.
        model: model folder: saved_model/, model.keras, labels.txt and model.json.
        logs: TensorBoard event files.
        curves: page with plots of loss, metrics and learning rate over the global step.
        augmentation_samples: page with some training images beside what the augmentation makes of them.
        pipeline_root: checkpoints are saved in checkpoints/ under it, unless model_dir is set.
        checkpoint_version: version of the content of checkpoint_path, from resolve; part of the cache key.
        estimator_version: version of the code of estimator, from resolve; part of the cache key; '' without one.
    """
    arguments = dict(locals())
    import math

    from tf_image_classification import command_line, recipes, training_run

    with command_line.reporting_errors():
        result = training_run.train(
            data.path,
            recipes.for_step("train", arguments),
            training_run.TrainOutputs(model.path, logs.path, curves.path, augmentation_samples.path),
            pipeline_root=pipeline_root,
            output_uri=model.uri,
            checkpoint_version=checkpoint_version,
            estimator_version=estimator_version,
        )
    # KFP cannot serialise NaN and infinity, the loss of a model that has diverged.
    metrics = {name: value for name, value in result.metrics.items() if math.isfinite(value)}
    model.metadata.update({"framework": "TensorFlow", **metrics})
