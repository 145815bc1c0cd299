"""Step 2, the core of the framework: train_and_evaluate, the main training flow.

    python -m tf_image_classification.train_estimator --train_metadata 'data/train*' --eval_metadata 'data/eval*'
    --model_dir models ...

or, for an EstimatorSpec of your own, `train_estimator.run(MyEstimator)` in its script, which then takes the same flags.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from tf_image_classification import command_line, storage
from tf_image_classification import flags as flag_table
from tf_image_classification.data.manifest import EVAL, TRAIN
from tf_image_classification.errors import EstimatorError, FlagError
from tf_image_classification.flags import Flags
from tf_image_classification.training.history import History

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from tf_image_classification.data.manifest import Manifest
    from tf_image_classification.estimator_specs import EstimatorSpec
    from tf_image_classification.training.folder import TrainingFolder

_log = logging.getLogger(__name__)

EXPORT_DIR = "export"


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The outcome of a training.

    Attributes:
        model_dir: checkpoints, summaries and history.
        export_dir: the model folder.
        metrics: of the last evaluation: `loss`, `global_step` and the spec's.
        steps_made: updates made by this process; 0 when the checkpoint was at --train_steps already.
    """

    model_dir: str
    export_dir: str
    metrics: dict[str, float]
    steps_made: int


def run(spec_class: type[EstimatorSpec], argv: Sequence[str] | None = None) -> NoReturn:
    """The main of a user's script: parses the flags, trains the spec, exits."""
    command_line.main(lambda arguments: _command(arguments, spec_class), argv)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line for built-in estimators and --estimator."""
    command_line.main(_command, argv)


def _command(argv: Sequence[str] | None, spec_class: type[EstimatorSpec] | None = None) -> None:
    flags = _parse(argv)

    from tf_image_classification.data import sources

    for metadata in (flags.train_metadata, flags.eval_metadata):
        if metadata:
            sources.expand(metadata)  # says what is missing before TensorFlow takes its seconds to load

    from tf_image_classification import dataset, estimator_specs
    from tf_image_classification.checkpoints import locate, state
    from tf_image_classification.training import distribution

    if flags.model_dir is None:
        import tempfile

        flags.model_dir = tempfile.mkdtemp(prefix="model-")
        _log.warning("--model_dir is not set: using the temporary folder %s", flags.model_dir)
    flags.model_dir = distribution.trial_dir(flags.model_dir)
    spec = (
        estimator_specs.instantiate(spec_class) if spec_class else estimator_specs.load(flags.estimator, flags.packages)
    )
    if isinstance(spec, estimator_specs.BuiltInEstimator):
        flag_table.check_image_size(flags.model_name, flags.image_size)
    if flags.checkpoint_path and state.latest(flags.model_dir) is None:
        locate.locate(flags.checkpoint_path)  # says what is missing before images are read
    data = dataset.prepare_training(
        flags.train_metadata,
        dataset.default_cache_dir(flags.model_dir),
        eval_metadata=flags.eval_metadata,
        labels_file=flags.labels_file,
        image_root=flags.image_root,
        eval_fraction=flags.eval_fraction,
        workers=flags.workers,
    )
    outcome = train_and_evaluate(spec, data, flags)
    _log.info("Final metrics: %s", ", ".join(f"{name} {value:.6g}" for name, value in outcome.metrics.items()))
    print(outcome.export_dir)


def _parse(argv: Sequence[str] | None) -> Flags:
    parser = command_line.Parser(
        "train_estimator",
        "Trains an image classifier, from scratch, from a pretrained checkpoint, or from where it was interrupted.",
        "environment: TF_CPP_MIN_LOG_LEVEL=0 shows all that TensorFlow and other libraries log, 1 their warnings.",
    )
    table = flag_table.of_command(flag_table.TRAIN)
    parser.add_flags(table, required=["train_metadata"])
    return parser.parse_flags(table, argv, required=["train_metadata"])


def train_and_evaluate(
    spec: EstimatorSpec, data: Manifest, flags: Flags, *, export_dir: str | None = None, checkpoint_version: str = ""
) -> TrainingResult:
    """Trains up to --train_steps, evaluates now and then and at the end, and exports the model.

    How it starts: from its own checkpoint in --model_dir; else from --checkpoint_path; else from scratch.

    Args:
        spec: what to train.
        data: a built data set with a training and an evaluation side.
        flags: those of the training command line; `model_dir` must be set.
        export_dir: where the model folder goes; default `<model_dir>/export`.
        checkpoint_version: identifies what lies at --checkpoint_path; goes into model.json.

    Raises:
        UserError: of the kind that tells what is wrong with flags, data or checkpoint, or that the loss is not a
            number.
    """
    import keras
    import tensorflow as tf

    from tf_image_classification import checkpoints, dataset, hooks
    from tf_image_classification.data import bucket_shards
    from tf_image_classification.training import folder as training_folder

    spec.flags = flags
    spec.take_tasks(data.tasks)
    data = dataset.with_tasks(data, spec.class_dict)
    # Keras numbers unnamed layers through a process, and checkpoints know variables by name: every training counts from
    # one.
    keras.utils.clear_session()
    if flags.seed is not None:
        keras.utils.set_random_seed(flags.seed)
    with training_folder.opened(flags.model_dir) as folder, bucket_shards.failures_named():
        made = _make(spec, data, flags)
        state = checkpoints.training_checkpoint(
            made.model, made.optimizer, made.global_step, {"data_seed": made.data_seed}
        )
        manager = tf.train.CheckpointManager(
            state,
            folder.local,
            max_to_keep=training_folder.CHECKPOINTS_KEPT,
            checkpoint_name=training_folder.CHECKPOINT_NAME,
        )
        warm_start = hooks.load_checkpoint(made.model, manager, folder, flags, checkpoint_version)
        start = int(made.global_step)
        history = History(folder.local, start)
        evaluate = _evaluation(spec, made.model, data, flags, folder, history)
        if start < flags.train_steps:
            metrics = _train(spec, made, data, flags, manager, folder, history, evaluate)
        else:
            _log.info("Nothing to train: the checkpoint is at step %d, --train_steps is %d", start, flags.train_steps)
            metrics = evaluate(start)
        folder.finish()  # whoever has been taken over exports nothing
        target = export_dir or storage.join(flags.model_dir, EXPORT_DIR)
        _export(spec, made, data, flags, target, {"warm_start": warm_start, "metrics": metrics})
    return TrainingResult(flags.model_dir, target, metrics, max(0, flags.train_steps - start))


@dataclass(frozen=True, slots=True)
class _Made:
    """What is made under the distribution strategy."""

    strategy: tf.distribute.Strategy
    params: Flags
    model: keras.Model
    variables: list[keras.Variable]
    optimizer: keras.optimizers.Optimizer
    learning_rate: Callable[[int], Any] | float
    global_step: tf.Variable
    data_seed: tf.Variable


def _make(spec: EstimatorSpec, data: Manifest, flags: Flags) -> _Made:
    """Builds network and optimizer where they will train."""
    import keras
    import tensorflow as tf

    from tf_image_classification import checkpoints, optimizers
    from tf_image_classification.training import distribution

    strategy = distribution.strategy()
    if flags.batch_size % strategy.num_replicas_in_sync:
        raise FlagError(
            "--batch_size cannot be shared evenly among the replicas",
            received=flags.batch_size,
            expected=f"a multiple of {strategy.num_replicas_in_sync}",
        )
    outputs = {entry["name"]: entry["depth"] for entry in spec.class_dict}
    examples = data.splits[TRAIN].examples
    params = Flags(
        **vars(flags), outputs=outputs, num_classes=next(iter(outputs.values())), num_samples_per_epoch=examples
    )
    learning_rate = optimizers.make_schedule(flags, examples)
    with strategy.scope(), _precision(flags.mixed_precision):
        model = spec.get_model_fn(flags.checkpoint_path)(params)
        if not isinstance(model, keras.Model):
            raise EstimatorError(
                "model_fn returns something else than a model", received=type(model).__name__, expected="a keras.Model"
            )
        variables = checkpoints.trainable_variables(model, flags.trainable_scopes)
        optimizer = optimizers.make_optimizer(flags, learning_rate)
        if flags.mixed_precision:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(variables)
        global_step = tf.Variable(0, dtype=tf.int64, trainable=False, name="global_step")
        # Saved with the checkpoint, so that a training without --seed, too, goes on in its own order.
        drawn = int.from_bytes(os.urandom(4), "big") >> 1 if flags.seed is None else flags.seed
        data_seed = tf.Variable(drawn, dtype=tf.int64, trainable=False, name="data_seed")
    _log.info(
        "%s: %s parameters, %s of them trained; %s training and %s evaluation examples",
        _model_name(spec, flags) or type(spec).__name__,
        f"{model.count_params():,}",
        f"{sum(math.prod(variable.shape) for variable in variables):,}",
        f"{examples:,}",
        f"{data.splits[EVAL].examples:,}",
    )
    return _Made(strategy, params, model, variables, optimizer, learning_rate, global_step, data_seed)


def _evaluation(
    spec: EstimatorSpec, model: keras.Model, data: Manifest, flags: Flags, folder: TrainingFolder, history: History
) -> Callable[[int], dict[str, float]]:
    """The function that evaluates the model as it is at a step, and records what it found."""
    import tensorflow as tf

    from tf_image_classification.training import steps

    input_fn = spec.input_fn(
        data,
        is_training=False,
        batch_size=flags.batch_size,
        image_size=flags.image_size,
        steps=flags.eval_freq,
        shuffle=not flags.debug,
    )
    evaluation = steps.Evaluation(spec, model, input_fn)
    writer = tf.summary.create_file_writer(os.path.join(folder.local, "eval"))

    def evaluate(step: int) -> dict[str, float]:
        metrics = evaluation(step)
        values = {name: value for name, value in metrics.items() if name != "global_step"}
        with writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        writer.flush()
        history.add("eval", step, values)
        folder.follow()
        _log.info("Evaluation at step %d: %s", step, ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
        return metrics

    return evaluate


def _train(
    spec: EstimatorSpec,
    made: _Made,
    data: Manifest,
    flags: Flags,
    manager: tf.train.CheckpointManager,
    folder: TrainingFolder,
    history: History,
    evaluate: Callable[[int], dict[str, float]],
) -> dict[str, float]:
    """Makes the steps up to --train_steps; evaluates, on a checkpoint, every --eval_throttle_secs and at the end."""
    import tensorflow as tf

    from tf_image_classification import hooks
    from tf_image_classification.training import steps

    step = start = int(made.global_step)
    batches = spec.input_fn(
        data,
        is_training=True,
        batch_size=flags.batch_size,
        image_size=flags.image_size,
        steps=flags.train_steps - start,
        first_step=start,
        seed=int(made.data_seed),
        shuffle=not flags.debug,
    )()
    iterator = iter(made.strategy.experimental_distribute_dataset(batches))
    update = steps.train_step(spec, made.model, made.optimizer, made.variables, made.global_step, made.strategy)
    nan_stop = hooks.NanStop()
    saver = hooks.CheckpointSaver(manager, folder, flags.save_checkpoints_secs, nan_stop)
    rate = made.learning_rate
    progress = hooks.Progress(
        tf.summary.create_file_writer(folder.local),
        history,
        flags.train_steps,
        flags.batch_size,
        lambda at: float(rate(at)) if callable(rate) else rate,
    )
    around: list[hooks.Hook] = [nan_stop, progress, saver, hooks.Preemption(saver, folder)]
    evaluated_at = time.monotonic()
    try:
        for hook in around:
            hook.begin(start)
        for step in range(start + 1, flags.train_steps + 1):
            loss = update(iterator)
            for hook in around:
                hook.after_step(step, loss)
            if step < flags.train_steps and time.monotonic() - evaluated_at >= flags.eval_throttle_secs:
                saver.save(step)
                evaluate(step)
                evaluated_at = time.monotonic()
        for hook in around:
            hook.end(step)
    finally:
        for hook in around:
            hook.close()
    return evaluate(step)


@contextlib.contextmanager
def _precision(mixed: bool) -> Iterator[None]:
    """Layers that are made in the block compute in float16, or in float32."""
    import keras

    previous = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_float16" if mixed else "float32")
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(previous)


def _export(spec: EstimatorSpec, made: _Made, data: Manifest, flags: Flags, folder: str, facts: dict[str, Any]) -> None:
    from tf_image_classification import export

    model = made.model
    if flags.mixed_precision:  # what is served computes in float32 whatever the training computed in
        with _precision(False):
            model = spec.get_model_fn(None)(made.params)
        model.set_weights(made.model.get_weights())
    facts = {
        "model_name": _model_name(spec, flags),
        "estimator": f"{type(spec).__module__}:{type(spec).__qualname__}",
        "flags": vars(flags),
        "data_fingerprint": data.fingerprint,
        **facts,
    }
    export.export(model, spec, data.tasks, folder, facts, flags.image_size)


def _model_name(spec: EstimatorSpec, flags: Flags) -> str | None:
    from tf_image_classification.estimator_specs import BuiltInEstimator

    return flags.model_name if isinstance(spec, BuiltInEstimator) else None


if __name__ == "__main__":
    main()
