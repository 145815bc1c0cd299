"""Step 2, the core of the framework: train_and_evaluate, the main training flow.

    python -m tf_image_classification.train_estimator --train_metadata 'data/train*' --eval_metadata 'data/eval*' --model_dir models ...

or, for an EstimatorSpec of your own, `train_estimator.run(MyEstimator)` in its script, which then takes the same flags.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from tf_image_classification import command_line, storage
from tf_image_classification import flags as flag_table
from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flags

if TYPE_CHECKING:
    import keras

    from tf_image_classification.estimator_specs import EstimatorSpec
    from tf_image_classification.manifest import Manifest

_log = logging.getLogger(__name__)

EXPORT_DIR = "export"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training ended with.

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

    from tf_image_classification import sources

    for metadata in (flags.train_metadata, flags.eval_metadata):
        if metadata:
            sources.expand(metadata)  # says what is missing before TensorFlow takes its seconds to load

    from tf_image_classification import dataset, distribution, estimator_specs

    if flags.model_dir is None:
        import tempfile

        flags.model_dir = tempfile.mkdtemp(prefix="model-")
        _log.warning("--model_dir is not set: using the temporary folder %s", flags.model_dir)
    flags.model_dir = distribution.trial_dir(flags.model_dir)
    spec = estimator_specs.instantiate(spec_class) if spec_class else estimator_specs.load(flags.estimator, flags.packages)
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
        "train_estimator", "Trains an image classifier, from scratch, from a pretrained checkpoint, or from where it was interrupted."
    )
    table = flag_table.of_command(flag_table.TRAIN)
    parser.add_flags(table, required=["train_metadata"])
    return parser.parse_flags(table, argv, required=["train_metadata"])


def train_and_evaluate(spec: EstimatorSpec, data: Manifest, flags: Flags, *, export_dir: str | None = None) -> Outcome:
    """Trains up to --train_steps, evaluates now and then and at the end, and exports the model.

    How it starts: from its own checkpoint in --model_dir; else from --checkpoint_path; else from scratch.

    Args:
        spec: what to train.
        data: a built data set with a training and an evaluation side.
        flags: those of the training command line; `model_dir` must be set.
        export_dir: where the model folder goes; default `<model_dir>/export`.

    Raises:
        UserError: of the kind that tells what is wrong with flags, data or checkpoint, or that the loss is not a number.
    """
    import keras
    import tensorflow as tf

    from tf_image_classification import checkpoints, dataset, distribution, hooks, optimizers, steps

    spec.flags = flags
    spec.take_tasks(data.tasks)
    dataset.check_tasks(data, spec.class_dict)
    if flags.seed is not None:
        keras.utils.set_random_seed(flags.seed)
    model_dir = flags.model_dir
    with storage.exclusive(model_dir):
        strategy = distribution.strategy()
        if flags.batch_size % strategy.num_replicas_in_sync:
            raise FlagError(
                "--batch_size cannot be shared evenly among the replicas",
                received=flags.batch_size,
                expected=f"a multiple of {strategy.num_replicas_in_sync}",
            )

        params = _params(spec, data, flags)
        learning_rate = optimizers.make_schedule(flags, params.num_samples_per_epoch)
        with strategy.scope(), _precision(flags.mixed_precision):
            model = spec.get_model_fn(flags.checkpoint_path)(params)
            variables = checkpoints.trainable_variables(model, flags.trainable_scopes)
            optimizer = optimizers.make_optimizer(flags, learning_rate)
            if flags.mixed_precision:
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            optimizer.build(variables)
            global_step = tf.Variable(0, dtype=tf.int64, trainable=False, name="global_step")
            data_seed = tf.Variable(_fresh_seed(flags.seed), dtype=tf.int64, trainable=False, name="data_seed")

        state = checkpoints.training_checkpoint(model, optimizer, global_step, {"data_seed": data_seed})
        manager = tf.train.CheckpointManager(state, model_dir, max_to_keep=5, checkpoint_name="model.ckpt")
        warm_start = _start(model, manager, flags)
        start = int(global_step)
        _log.info(
            "%s: %s parameters, %s of them trained; %s training and %s evaluation examples",
            params.model_name if flags.estimator is None else flags.estimator,
            f"{model.count_params():,}",
            f"{sum(int(tf.size(variable.value)) for variable in variables):,}",
            f"{data.splits['train'].examples:,}",
            f"{data.splits['eval'].examples:,}",
        )

        evaluation = steps.Evaluation(
            spec,
            model,
            spec.input_fn(
                data,
                is_training=False,
                batch_size=flags.batch_size,
                image_size=flags.image_size,
                steps=flags.eval_freq,
                shuffle=not flags.debug,
            ),
        )
        history = hooks.History(model_dir, start)
        eval_writer = tf.summary.create_file_writer(os.path.join(model_dir, "eval"))

        def evaluate(step: int) -> dict[str, float]:
            metrics = evaluation(step)
            with eval_writer.as_default(step=step):
                for name, value in metrics.items():
                    tf.summary.scalar(name, value)
            eval_writer.flush()
            history.add("eval", step, {name: value for name, value in metrics.items() if name != "global_step"})
            shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if name != "global_step")
            _log.info("Evaluation at step %d: %s", step, shown)
            return metrics

        if start >= flags.train_steps:
            _log.info("Nothing to train: the checkpoint is at step %d, --train_steps is %d", start, flags.train_steps)
            metrics = evaluate(start)
        else:
            nan_stop = hooks.NanStop()
            saver = hooks.CheckpointSaver(manager, flags.save_checkpoints_secs, nan_stop)
            progress = hooks.Progress(
                tf.summary.create_file_writer(model_dir),
                history,
                flags.train_steps,
                flags.batch_size,
                lambda step: float(learning_rate(step)) if callable(learning_rate) else float(learning_rate),
            )
            batches = spec.input_fn(
                data,
                is_training=True,
                batch_size=flags.batch_size,
                image_size=flags.image_size,
                steps=flags.train_steps - start,
                first_step=start,
                seed=int(data_seed),
                shuffle=not flags.debug,
            )()
            metrics = _loop(
                steps.train_step(spec, model, optimizer, variables, global_step, strategy),
                iter(strategy.experimental_distribute_dataset(batches)),
                range(start + 1, flags.train_steps + 1),
                [nan_stop, saver, hooks.Preemption(saver), progress],
                saver,
                evaluate,
                flags.eval_throttle_secs,
            )

        target = export_dir or os.path.join(model_dir, EXPORT_DIR)
        _export(spec, model, params, data, flags, target, metrics, warm_start)
        return Outcome(model_dir, target, metrics, max(0, flags.train_steps - start))


def _loop(step_fn: Any, iterator: Any, step_range: range, hooks: Any, saver: Any, evaluate: Any, throttle_secs: float) -> dict[str, float]:
    """Makes the steps; evaluates, on a checkpoint, whenever `throttle_secs` have gone by, and at the end."""
    evaluated_at = time.monotonic()
    step = step_range.start - 1
    try:
        for hook in hooks:
            hook.begin(step)
        for step in step_range:
            loss = step_fn(iterator)
            for hook in hooks:
                hook.after_step(step, loss)
            if time.monotonic() - evaluated_at >= throttle_secs and step < step_range.stop - 1:
                saver.save(step)
                evaluate(step)
                evaluated_at = time.monotonic()
        for hook in hooks:
            hook.end(step)
    finally:
        for hook in hooks:
            hook.close()
    metrics: dict[str, float] = evaluate(step)
    return metrics


def _start(model: keras.Model, manager: Any, flags: Flags) -> dict[str, Any] | None:
    """Restores the newest own checkpoint that can be read, or warm-starts. Returns what model.json says of the warm start."""
    import tensorflow as tf

    from tf_image_classification import checkpoints

    for path in reversed(manager.checkpoints):
        try:
            manager.checkpoint.restore(path).assert_existing_objects_matched()
        except (tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.OutOfRangeError) as error:
            _log.warning("Passing over the damaged checkpoint %s: %s", path, str(error).splitlines()[0])
            continue
        _log.info("Continuing from %s", path)
        if flags.checkpoint_path:
            _log.info("Ignoring --checkpoint_path because %s has a checkpoint already", manager.directory)
        return None
    if not flags.checkpoint_path:
        _log.info("Training from scratch")
        return None
    report = checkpoints.warm_start(model, flags.checkpoint_path, flags.checkpoint_exclude_scopes)
    _log.info("Starting from %s\n%s", flags.checkpoint_path, report.table())
    return {"checkpoint": flags.checkpoint_path, "loaded": len(report.loaded), "not_loaded": sorted([*report.excluded, *report.missing])}


def _params(spec: EstimatorSpec, data: Manifest, flags: Flags) -> Flags:
    """What model_fn gets: every flag, and the sizes that come from the data."""
    outputs = {entry["name"]: entry["depth"] for entry in spec.class_dict}
    return Flags(
        **vars(flags),
        outputs=outputs,
        num_classes=next(iter(outputs.values())),
        num_samples_per_epoch=data.splits["train"].examples,
    )


def _fresh_seed(seed: int | None) -> int:
    return int.from_bytes(os.urandom(4), "big") >> 1 if seed is None else seed


def _precision(mixed: bool) -> Any:
    """A context in which layers are made to compute in float16, or in float32."""
    import contextlib

    import keras

    @contextlib.contextmanager
    def policy() -> Any:
        previous = keras.mixed_precision.dtype_policy()
        keras.mixed_precision.set_dtype_policy("mixed_float16" if mixed else "float32")
        try:
            yield
        finally:
            keras.mixed_precision.set_dtype_policy(previous)

    return policy()


def _export(
    spec: EstimatorSpec,
    model: keras.Model,
    params: Flags,
    data: Manifest,
    flags: Flags,
    folder: str,
    metrics: dict[str, float],
    warm_start: dict[str, Any] | None,
) -> None:
    from tf_image_classification import export

    if flags.mixed_precision:  # what is served computes in float32 whatever the training computed in
        with _precision(False):
            served = spec.get_model_fn(None)(params)
        served.set_weights(model.get_weights())
        model = served
    by_name = {task.name: task for task in data.tasks}
    export.export(
        model,
        spec,
        [by_name[entry["name"]] for entry in spec.class_dict],
        folder,
        {
            "model_name": flags.model_name if flags.estimator is None and type(spec).__name__ == "BuiltInEstimator" else None,
            "estimator": f"{type(spec).__module__}:{type(spec).__qualname__}",
            "flags": vars(flags),
            "data_fingerprint": data.fingerprint,
            "warm_start": warm_start,
            "metrics": metrics,
        },
        flags.image_size,
    )


if __name__ == "__main__":
    main()
