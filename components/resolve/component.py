"""resolve: paths of the pipeline -> concrete sources, versions of their content, and the model in service."""

from typing import NamedTuple

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def resolve(
    # flags: begin (written by `make generate`)
    recipe: str = "",
    checkpoint_path: str = "",
    weights_dir: str = "",
    billing_project: str = "",
    train_metadata: str = "",
    eval_metadata: str = "",
    batch_size: int = 1,
    train_steps: int = 20,
    image_size: int = 299,
    eval_freq: int = 5,
    eval_throttle_secs: int = 120,
    debug: bool = False,
    labels_file: str = "",
    image_root: str = "",
    eval_fraction: float = 0.2,
    split_column: str = "",
    image_feature: str = "",
    label_feature: str = "",
    max_image_pixels: int = 120000000,
    max_image_mib: int = 256,
    max_side: int = 0,
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
    champion: str = "",
    promote: bool = True,
    # flags: end
) -> NamedTuple(
    "Outputs",
    train_sources=str,
    eval_sources=str,
    fingerprint=str,
    checkpoint=str,
    checkpoint_version=str,
    estimator_version=str,
    champion_folder=str,
    champion_version=str,
    in_service=str,
):
    """Resolves the paths of the pipeline, fingerprints the data that is there now, and finds the model in service.

    It is never cached, and cheap. Its outputs are part of the cache keys of the later steps, which therefore run again
    when the content of a path changes, not only its name.

    Returns:
        train_sources: train_metadata with absolute paths and dates filled in.
        eval_sources: eval_metadata with absolute paths and dates filled in; '' when not set.
        fingerprint: fingerprint of the data; changes whenever the data does.
        checkpoint: checkpoint that training starts from, with symbolic links resolved; '' for none.
        checkpoint_version: version of the content of checkpoint; '' for none.
        estimator_version: version of the contents of packages and of the source of estimator; '' for none.
        champion_folder: model folder of the model in service; '' for none.
        champion_version: version of the content of champion_folder; '' for none.
        in_service: name of the model in service; '' for none.
    """
    arguments = dict(locals())
    from tf_image_classification import command_line, recipes, storage
    from tf_image_classification.promotion import resolve
    from tf_image_classification.promotion.champion import in_service, is_registry

    with command_line.reporting_errors():
        values = recipes.for_step("resolve", arguments)
        storage.bill_to(values.billing_project)
        model = None
        if values.champion and is_registry(values.champion):
            from tf_image_classification.vertex import registry

            model = registry.in_service(values.champion)
        elif values.champion:
            model = in_service(values.champion)
        return resolve.resolve(values, model)
