"""The tf.distribute strategy, chosen from the machine and its place in a cluster."""

from __future__ import annotations

import functools
import os
from typing import Any

import tensorflow as tf

from tf_image_classification import cluster
from tf_image_classification.cluster import PeerError, Role
from tf_image_classification.data.batch_part import BatchPart
from tf_image_classification.data.manifest import Manifest
from tf_image_classification.estimator_specs import EstimatorSpec
from tf_image_classification.training import devices, peer_watch, presence

HEARTBEAT_SECONDS = 20  # without one from a task, it counts as lost


def strategy() -> tf.distribute.Strategy:
    """The strategy for this machine and TF_CONFIG.

    Several workers: MultiWorkerMirroredStrategy, once all of them are there; the same one in each call. GPUs: as
    `devices.gpu_strategy`. A CPU: the default strategy.

    In a cluster, nothing may have used TensorFlow's devices before the first call.

    Raises:
        FlagError: TF_CONFIG is malformed.
        PeerError: not all workers came.
    """
    task = cluster.current()
    if task.has_parameter_servers:
        return tf.distribute.get_strategy()  # of what the chief keeps of the state, see `parameter_servers`
    devices.prepare()
    if task.is_synchronous:
        members = {role: task.cluster[role] for role in (Role.CHIEF, Role.WORKER) if role in task.cluster}
        return _join(task.role, task.index, tuple(members.items()))
    gpus = len(tf.config.list_physical_devices("GPU"))
    return devices.gpu_strategy(gpus) if gpus else tf.distribute.get_strategy()


def local(training: tf.distribute.Strategy) -> tf.distribute.Strategy:
    """The strategy for what a worker computes alone with the variables of `training`: on one of its devices."""
    is_cluster = isinstance(training, tf.distribute.MultiWorkerMirroredStrategy)
    return tf.distribute.get_strategy() if is_cluster else training


def training_batches(
    spec: EstimatorSpec, data: Manifest, strategy: tf.distribute.Strategy, **options: Any
) -> tf.distribute.DistributedDataset:
    """The batches of a training, divided among the replicas: every worker reads its part of each.

    Args:
        options: the arguments of `spec.input_fn` for a training.
    """
    task = cluster.current()
    if not task.is_synchronous:
        return strategy.experimental_distribute_dataset(spec.step_input(data, **options)())
    replicas = strategy.num_replicas_in_sync
    own = replicas // task.num_workers
    part = BatchPart(task.worker_index * own, own, replicas)
    batches_fn = spec.step_input(data, part, **options)
    # Of a finite data set, all workers would ask each other at each step whether it has ended.
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return strategy.distribute_datasets_from_function(lambda context: batches_fn().apply(endless))


def trial_dir(model_dir: str) -> str:
    """`model_dir`, or a trial's own folder in it when TF_CONFIG names a trial of hyperparameter tuning."""
    trial = cluster.current().trial
    return os.path.join(model_dir, trial) if trial else model_dir


@functools.cache  # a process joins its cluster once
def _join(role: Role, index: int, members: tuple[tuple[Role, tuple[str, ...]], ...]) -> tf.distribute.Strategy:
    """Waits until all tasks have started, and connects to them."""
    addresses = {str(member): list(tasks) for member, tasks in members}
    # TensorFlow would wait as well, but with the interpreter's lock: deaf to signals, and without a word.
    own = addresses[role][index]
    names = {address: f"{job} {number}" for job, tasks in addresses.items() for number, address in enumerate(tasks)}
    with presence.listening(own):
        presence.wait_for({address: name for address, name in names.items() if address != own})
    _configure_coordination(addresses)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(addresses), task_type=str(role), task_id=index, rpc_layer="grpc"
    )
    try:
        with peer_watch.interruptible():
            return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except tf.errors.OpError as error:
        raise PeerError(
            f"Not all tasks of the cluster were there within {cluster.join_seconds():g} s",
            received=str(error).splitlines()[0],
            expected=", ".join(address for tasks in addresses.values() for address in tasks),
            hint="The log of the missing task says why it ended or did not start.",
        ) from error


def _configure_coordination(addresses: dict[str, list[str]]) -> None:
    """The time limits of TensorFlow's coordination service. Its defaults are an hour for a task to come, and ten
    seconds without a heartbeat, which a machine that starts on all cores may exceed."""
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.eager import context

    leader = Role.CHIEF if Role.CHIEF in addresses else Role.WORKER
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{leader}/replica:0/task:0",
        cluster_register_timeout_in_ms=int(cluster.join_seconds() * 1000),
        heartbeat_timeout_in_ms=HEARTBEAT_SECONDS * 1000,
        coordinated_jobs=[
            coordination_config_pb2.CoordinatedJob(name=job, num_tasks=len(tasks)) for job, tasks in addresses.items()
        ],
    )
    # Otherwise the chief, who registers with itself, waits an hour for the others, and keeps the interpreter's lock.
    context.context().coordination_service.cluster_register_with_barrier = True
