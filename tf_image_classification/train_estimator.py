"""Step 2, the core of the framework: train_and_evaluate, the main training flow.

    python -m tf_image_classification.train_estimator --train_metadata 'data/train*' --eval_metadata 'data/eval*'
    --model_dir models ...

or, for an EstimatorSpec of your own, `train_estimator.run(MyEstimator)` in its script, which then takes the same flags.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from tf_image_classification import cluster, command_line, estimator_code, imagenet_weights, network_sizes, storage
from tf_image_classification import flags as flag_table
from tf_image_classification.cluster import Role
from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flags

if TYPE_CHECKING:
    import tensorflow as tf

    from tf_image_classification.data.manifest import Manifest
    from tf_image_classification.estimator_specs import EstimatorSpec
    from tf_image_classification.training.build import TrainingState
    from tf_image_classification.training.evaluator import Evaluator
    from tf_image_classification.training.hook import Hook
    from tf_image_classification.training.parameter_servers import Servers
    from tf_image_classification.training.stages import Stage
    from tf_image_classification.training.training_folder import TrainingFolder
    from tf_image_classification.training.workers import Wishes, Workers

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The outcome of a training.

    Attributes:
        model_dir: checkpoints, summaries and history.
        export_dir: the model folder.
        metrics: of the exported model: `loss`, `loss_without_regularization`, `global_step` and the spec's. Empty in
            workers that are not the chief.
        steps_made: updates made by this process; 0 when the checkpoint was at --train_steps already.
    """

    model_dir: str
    export_dir: str
    metrics: dict[str, float]
    steps_made: int


def run(spec_class: type[EstimatorSpec], argv: Sequence[str] | None = None) -> NoReturn:
    """The main of a user's script: parses the flags, trains the spec, exits.

    Args:
        spec_class: its `__init__` takes no arguments.
        argv: the flags; default `sys.argv[1:]`.
    """
    with cluster.failing_at_once():
        command_line.main(lambda arguments: _command(arguments, spec_class), argv)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line for built-in estimators and --estimator; exits.

    Args:
        argv: the flags; default `sys.argv[1:]`.
    """
    with cluster.failing_at_once():
        command_line.main(_command, argv)


def train_and_evaluate(
    spec: EstimatorSpec, data: Manifest, flags: Flags, *, export_dir: str | None = None, checkpoint_version: str = ""
) -> TrainingResult:
    """Trains up to --train_steps, evaluates at intervals and at the end, and exports the model.

    A training starts from its own newest checkpoint in --model_dir; else from --checkpoint_path; else from scratch.

    Of several workers the chief alone reads and writes --model_dir and the export; all return after it has.

    Sets `spec.flags`, `spec.class_weights` and, if it has none, `spec.class_dict`; resets Keras's global state and,
    with --seed, the random seeds of Python, NumPy and TensorFlow.

    Args:
        spec: the estimator to train.
        data: a built data set with a training and an evaluation split.
        flags: those of the training command line; `model_dir` must be set.
        export_dir: where the model folder is written; default `<model_dir>/export`.
        checkpoint_version: identifies the content at --checkpoint_path; recorded in model.json.

    Raises:
        UserError: of the kind that names what is wrong with flags, data, checkpoint or spec, or with the training (the
            loss is not a number, the folder cannot be written, a worker did not come or was lost).
        Preempted: SIGTERM or Ctrl-C ended the training, after a checkpoint.
    """
    from tf_image_classification.model_folder import EXPORT_DIR
    from tf_image_classification.training import checkpoint_evaluation, parameter_servers, presence

    task = cluster.current()
    target = export_dir or storage.join(flags.model_dir, EXPORT_DIR)
    if parameter_servers.serves(task):
        parameter_servers.serve(task)
        return TrainingResult(flags.model_dir, target, {}, 0)
    if task.role == Role.EVALUATOR:
        metrics = checkpoint_evaluation.evaluate_checkpoints(spec, _configure(spec, data, flags), flags, task)
        return TrainingResult(flags.model_dir, target, metrics, 0)
    servers = parameter_servers.Servers(task) if task.has_parameter_servers else None
    with presence.announced(task) if task.is_alone else contextlib.nullcontext():  # for an evaluator
        result = _train_and_export(spec, data, flags, servers, target, checkpoint_version)
    if servers is not None:
        servers.finish()
    return result


def _train_and_export(
    spec: EstimatorSpec, data: Manifest, flags: Flags, servers: Servers | None, target: str, checkpoint_version: str
) -> TrainingResult:
    """As `train_and_evaluate`, of a task that trains."""
    from tf_image_classification import asynchronous_training, hooks, training_end, training_hooks
    from tf_image_classification.checkpoints import class_names
    from tf_image_classification.data import bucket_shards
    from tf_image_classification.training import build, distribution, peer_watch
    from tf_image_classification.training.workers import Wishes, Workers

    workers = Workers(distribution.strategy(), cluster.current())
    data = _configure(spec, data, flags)
    metrics: dict[str, float] = {}
    with (
        peer_watch.watching(workers.task),
        workers.open_folder(flags.model_dir) as folder,
        bucket_shards.translate_fetch_errors(),
    ):
        state = build.build(spec, data, flags)
        names, network = class_names.of_tasks(data.tasks), build.model_name(spec, flags)
        manager = state.checkpoint_manager(folder.local, names)
        warm_start = evaluator = None
        if workers.is_chief:
            warm_start = hooks.load_checkpoint(
                state.model, manager, folder, flags, checkpoint_version, model_name=network, class_names=names
            )
        workers.copy_from_chief(state.variables)
        start = state.begin()
        if workers.is_chief:
            evaluator = _evaluator(spec, state, data, flags, folder, start)
        if not _is_over(start, flags, evaluator, workers):
            wishes = Wishes(workers.task)
            around = training_hooks.of(state, flags, manager, folder, evaluator, workers, wishes)
            if servers is not None and evaluator is not None:
                run = asynchronous_training.AsynchronousTraining(servers, spec, state, data, flags, folder, evaluator)
                run(around)
            else:
                _train(spec, state, data, flags, around, wishes)
        if evaluator is not None:
            metrics = training_end.evaluate_and_export(spec, state, data, flags, folder, evaluator, target, warm_start)
        workers.wait_for_chief()
    return TrainingResult(flags.model_dir, target, metrics, int(state.global_step.numpy()) - start)


def _evaluator(
    spec: EstimatorSpec, state: TrainingState, data: Manifest, flags: Flags, folder: TrainingFolder, start: int
) -> Evaluator:
    """Writes what is known of a training at its start; returns the evaluations that follow."""
    from tf_image_classification.training import augmentation_page, estimator_record
    from tf_image_classification.training.evaluator import Evaluator
    from tf_image_classification.training.history import History

    estimator_record.update(folder, spec.code, start, flags.train_steps)
    augmentation_page.write(spec, data, folder, int(state.data_seed.numpy()))
    return Evaluator(spec, state, data, flags, folder, History(folder.local, start))


def _is_over(start: int, flags: Flags, evaluator: Evaluator | None, workers: Workers) -> bool:
    """Whether nothing is left to train from global step `start` on."""
    if start >= flags.train_steps:
        what = "Nothing to train or to profile" if flags.profile else "Nothing to train"
        _log.info("%s: the checkpoint is at step %d, --train_steps is %d", what, start, flags.train_steps)
        return True
    has_ended = evaluator is not None and evaluator.selection.should_stop
    if workers.of_chief(int(has_ended)):
        _log.info("Nothing to train: --early_stopping_evals has ended the training at step %d", start)
        return True
    return False


def _configure(spec: EstimatorSpec, data: Manifest, flags: Flags) -> Manifest:
    """Sets the spec's attributes; returns the data with the spec's tasks."""
    import keras

    from tf_image_classification import dataset, estimator_loading
    from tf_image_classification.training import class_weights, flag_checks, precision

    precision.of(flags)  # raises if flags contradict each other
    flag_checks.check_profile(flags)
    spec.flags = flags
    estimator_loading.check_input(spec)
    spec.set_default_class_dict(data.tasks)
    data = dataset.with_tasks(data, spec.class_dict)
    spec.class_weights = class_weights.class_weights(spec, data, flags)
    flag_checks.warn(flags)
    flag_checks.warn_of_small_images(data, flags)
    # Keras numbers unnamed layers through a process, and checkpoints know variables by name: every training counts from
    # one. Collecting garbage, of which there is hardly any yet, would take 0.2 s.
    keras.utils.clear_session(free_memory=False)
    return data


def _train(
    spec: EstimatorSpec, state: TrainingState, data: Manifest, flags: Flags, hooks: Sequence[Hook], wishes: Wishes
) -> None:
    """Updates the state from its global step up to --train_steps, or to where a hook stops it."""
    from tf_image_classification import optimizers
    from tf_image_classification.training import distribution, stages

    step = start = int(state.global_step.numpy())
    batches_per_step = optimizers.micro_batches(flags)
    batches = distribution.training_batches(
        spec,
        data,
        state.strategy,
        batch_size=flags.batch_size,
        image_size=flags.image_size,
        steps=(flags.train_steps - start) * batches_per_step,
        first_step=start * batches_per_step,
        seed=int(state.data_seed.numpy()),
        shuffle=not flags.debug,
    )
    iterator = iter(batches)
    updates = {id(stage): _update(spec, state, stage) for stage in state.stages}
    try:
        for hook in hooks:
            hook.begin(start)
        while step < flags.train_steps and not any(hook.should_stop for hook in hooks):
            step += 1
            values = wishes.exchange(updates[id(stages.stage_at(state.stages, step))], iterator)
            for hook in hooks:
                hook.after_step(step, values)
        if step < flags.train_steps:
            _log.info(
                "Training ends at step %d: %d evaluations without an improvement", step, flags.early_stopping_evals
            )
        for hook in hooks:
            hook.end(step)
    finally:
        for hook in hooks:
            hook.close()


def _update(spec: EstimatorSpec, state: TrainingState, stage: Stage) -> Callable[..., Mapping[str, tf.Tensor]]:
    """The compiled update of a stage."""
    from tf_image_classification import optimizers
    from tf_image_classification.training import steps

    return steps.train_step(
        spec,
        state.model,
        stage.optimizer,
        stage.variables,
        state.global_step,
        state.strategy,
        inference_layers=stage.inference_layers,
        average=state.average,
        sync_batch_norm=state.params.sync_batch_norm,
        micro_batches=optimizers.micro_batches(state.params),
        jit_compile=state.params.jit_compile,
    )


def _command(argv: Sequence[str] | None, spec_class: type[EstimatorSpec] | None = None) -> None:
    flags = _parse(argv)
    task = cluster.current()

    from tf_image_classification.data import sources

    for metadata in (flags.train_metadata, flags.eval_metadata):
        if metadata:
            sources.expand(metadata)  # raises if there is none, before TensorFlow takes seconds to load

    from tf_image_classification import built_in_estimator, estimator_loading, training_data
    from tf_image_classification.checkpoints import checkpoint_file, locate
    from tf_image_classification.training import (
        build,
        distribution,
        flag_checks,
        parameter_servers,
        peer_watch,
        precision,
    )
    from tf_image_classification.training.workers import Workers

    if parameter_servers.serves(task):
        parameter_servers.serve(task)
        return
    if flags.model_dir is None:
        if not task.is_alone:
            raise FlagError("--model_dir is required in a cluster", expected="a folder that all of its machines share")
        import tempfile

        flags.model_dir = tempfile.mkdtemp(prefix="model-")
        _log.warning("--model_dir is not set: using the temporary folder %s", flags.model_dir)
    flags.model_dir = distribution.trial_dir(flags.model_dir)
    if spec_class:
        spec = estimator_loading.instantiate(spec_class)
        spec.code = estimator_code.of_class(spec_class)
    else:
        spec = estimator_loading.load(flags.estimator, flags.packages)
    spec.flags = flags
    precision.of(flags)
    flag_checks.check_profile(flags)
    estimator_loading.check_input(spec)  # before images are read
    if isinstance(spec, built_in_estimator.BuiltInEstimator):
        network_sizes.check_image_size(flags.model_name, flags.image_size)
    if task.is_chief and flags.checkpoint_path and checkpoint_file.latest(flags.model_dir) is None:
        if flags.checkpoint_path == imagenet_weights.IMAGENET:
            imagenet_weights.file_of(build.model_name(spec, flags))
        else:
            locate.locate(flags.checkpoint_path)  # raises if there is none, before images are read
    workers = Workers(distribution.strategy(), task)
    with peer_watch.watching(task):
        data = training_data.prepare_data(flags, workers)
        result = train_and_evaluate(spec, data, flags)
    if workers.is_chief:
        _log.info("Final metrics: %s", ", ".join(f"{name} {value:.6g}" for name, value in result.metrics.items()))
        print(result.export_dir)
    parameter_servers.end_process(task)


def _parse(argv: Sequence[str] | None) -> Flags:
    parser = command_line.Parser(
        "train_estimator",
        "Trains an image classifier, from scratch, from a pretrained checkpoint, or from where it was interrupted.",
        "environment: TF_CPP_MIN_LOG_LEVEL=0 shows all that TensorFlow and other libraries log, 1 their warnings.",
    )
    table = flag_table.of_command(flag_table.TRAIN)
    parser.add_flags(table, required=["train_metadata"])
    parser.add_show()
    flags = parser.parse_flags(table, argv, required=["train_metadata"])
    estimator_code.check_flags(flags.estimator, flags.packages)
    storage.bill_to(flags.billing_project)
    return flags


if __name__ == "__main__":
    main()
