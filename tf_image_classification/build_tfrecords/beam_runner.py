"""--runner: which runner of Apache Beam builds, with options that are Beam's own, and what it cannot build."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tf_image_classification import command_line, flags, storage
from tf_image_classification.data.sources import ImageSource, ReadOptions, Source, split_metadata
from tf_image_classification.errors import FlagError, UnavailableError

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

DIRECT, DATAFLOW = "DirectRunner", "DataflowRunner"

# Options of Beam by which workers get packages that Beam's own image does not have.
_PACKAGES = ("sdk_container_image", "worker_harness_container_image", "extra_packages", "setup_file")
_LONGEST_JOB = 365 * 24 * 60 * 60  # seconds
_PATIENCE = 60  # seconds until a job service that does not answer is given up


class RemoteJob(Protocol):
    """A job that may outlive the process which has started it. Another process, which builds the same, goes on with it.

    Attributes:
        folder: for the workers' files, the same for each of these processes. Who makes the job deletes it.
    """

    folder: str

    def is_started(self) -> bool:
        """Whether there is a job whose results can be used, of this process or of an earlier one."""
        ...

    def run(self, start: Callable[[], object]) -> str:
        """Calls `start`, which creates the job, unless it is started, and waits for its end.

        Returns:
            A state of Beam's PipelineState.

        Raises:
            UserError: the job failed, was cancelled, or its service does not answer.
            SystemExit: this process was told to end; the job is cancelled.
        """
        ...


def marker(folder: str) -> str:
    """The file in the folder of a RemoteJob that says which images it reads: written before the job is started."""
    return storage.join(folder, "chunks.sha256")


@dataclass(frozen=True, slots=True)
class BeamRunner:
    """A runner of Apache Beam.

    Attributes:
        name: `DirectRunner` and the like.
        options: words of a command line, as Beam's programs take them.
        job: that outlives this process; None for one that ends with it.
    """

    name: str
    options: tuple[str, ...] = ()
    job: RemoteJob | None = None

    def check_options(self) -> None:
        """Checks that Beam is installed, that it knows the options, and that the workers will have this package.

        Raises:
            FlagError: otherwise.
        """
        if importlib.util.find_spec("apache_beam") is None:
            raise FlagError(
                f"--runner {self.name} needs Apache Beam, which is not installed",
                hint="In an environment of its own, run pip install --no-deps -r requirements/beam.txt; without the "
                "sources, as docs/beam.md says.",
            )
        from apache_beam.options import pipeline_options

        parser = command_line.Parser(self.name, "")
        for options in pipeline_options.PipelineOptions.__subclasses__():
            options._add_argparse_args(parser)
        given, strays = parser.parse_known_args(self.options)
        parser.reject(strays, [flag.name for flag in flags.of_command(flags.BUILD)])
        if self.name == DATAFLOW and not any(getattr(given, name, None) for name in _PACKAGES):
            raise FlagError(
                "Dataflow's workers would not have the packages of a build",
                expected="--sdk_container_image IMAGE",
                hint="`make images REGISTRY=... PUSH=1 IMAGES=beam` builds it.",
            )
        if self.name != DATAFLOW and given.sdk_container_image:
            raise FlagError(
                f"--sdk_container_image has no effect on {self.name}: it is Dataflow's",
                received=given.sdk_container_image,
                expected="--environment_type DOCKER --environment_config IMAGE, on Flink and Spark",
            )

    def pipeline(self) -> beam.Pipeline:
        """An empty pipeline with these options.

        Raises:
            FlagError: Beam or its runner refuses their values.
            UnavailableError: no job service answers at --job_endpoint.
        """
        import apache_beam
        from apache_beam.options import pipeline_options
        from apache_beam.runners.portability import portable_runner

        options = pipeline_options.PipelineOptions([f"--runner={self.name}", *self.options])
        try:
            pipeline = apache_beam.Pipeline(options=options)
        except ValueError as error:
            found = " ".join(line.strip() for line in str(error).splitlines()[1:]) or str(error)
            raise FlagError("Apache Beam refuses its options", received=f"--runner {self.name}: {found}") from None
        if self.name == DIRECT:
            pipeline.runner = _on_this_machine(pipeline.options)
        elif isinstance(pipeline.runner, portable_runner.PortableRunner):
            _wait_for_job_service(pipeline.options)
        return pipeline

    def run(self, make: Callable[[beam.Pipeline], object]) -> str:
        """Runs a pipeline, or goes on with the job that does, and returns the state in which it ended.

        When this process is interrupted, a job that it has started itself is cancelled.

        Args:
            make: adds its steps to an empty pipeline.

        Raises:
            UserError: as of `RemoteJob.run`; any other exception of the runner.
        """

        def start() -> Any:
            pipeline = self.pipeline()
            make(pipeline)
            return pipeline.run()

        if self.job is not None:
            return self.job.run(start)
        result = start()
        try:
            return str(result.wait_until_finish())
        except BaseException:
            with contextlib.suppress(Exception):  # it may have ended
                result.cancel()
            raise

    def check_sources(self, sources: Iterable[Source], options: ReadOptions) -> None:
        """Checks that the runner has something to do, and that its workers can read it.

        Raises:
            FlagError: otherwise.
        """
        given = list(sources)
        if not any(isinstance(source, ImageSource) for source in given):
            raise FlagError(
                "--runner has no effect: TFRecords are only checked and listed, by this machine",
                received=f"--runner {self.name}, and {given[0].path}",
                expected="images in folders or lists",
            )
        roots = split_metadata(options.image_root or "")
        for path in [source.path for source in given if isinstance(source, ImageSource)] + roots:
            self.check_path(path)

    def check_path(self, path: str) -> None:
        """Checks that the runner's workers can open a path.

        Raises:
            FlagError: they are other machines, and it is of this one.
        """
        if self.name == DATAFLOW and not storage.is_remote(storage.canonical(path)):
            raise FlagError(
                "Dataflow's workers do not have the disk of this machine",
                received=path,
                expected="a path on gs:// or s3://",
            )


def _on_this_machine(options: PipelineOptions) -> FnApiRunner:
    """What runs for DirectRunner: the engine of Beam's Python package.

    Beam's DirectRunner first downloads Prism, a program, from GitHub and runs the pipeline on that. This engine, whose
    options --direct_num_workers and the like are, is what it falls back to where GitHub cannot be reached.
    """
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability import portable_runner
    from apache_beam.runners.portability.fn_api_runner import fn_runner

    for_workers = portable_runner.JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=for_workers)
    return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(info))


def _wait_for_job_service(options: PipelineOptions) -> None:
    """Waits until the job service of --job_endpoint answers, if there is one, and sets no limit to how long a job runs.

    Beam cuts off the stream of a job's states after --job_server_timeout too, unless the job service gives jobs another
    id when they run: for Beam, a job that takes longer has failed.
    """
    import grpc
    from apache_beam.options import pipeline_options

    portable = options.view_as(pipeline_options.PortableOptions)
    endpoint, seconds = portable.job_endpoint, min(portable.job_server_timeout, _PATIENCE)
    portable.job_server_timeout = _LONGEST_JOB
    if not endpoint or endpoint == "embed":
        return
    try:
        with grpc.insecure_channel(endpoint) as channel:
            grpc.channel_ready_future(channel).result(timeout=seconds)
    except grpc.FutureTimeoutError:
        raise UnavailableError(
            "No job service of Apache Beam answers",
            received=f"--job_endpoint {endpoint}, in {seconds} s",
            expected="HOST:PORT of the job service of Flink, Spark or Prism",
        ) from None
