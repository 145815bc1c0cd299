"""What a compiled pipeline says of the Dataflow job that its build step launches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class DataflowOptions:
    """A job of Dataflow; '' and 0 for the service's default.

    Attributes:
        image: reference of the image of the workers, which is that of the step too.
        region: where the job runs; '' for the region of the run, which Vertex AI alone tells its steps.
        max_workers: machines at most.
        machine_type: of a worker, as n2-standard-4.
        service_account: e-mail address of the workers' account; '' for that of the run on Vertex AI, elsewhere for the
            project's Compute Engine account.
        network, subnetwork: of the workers, as Beam's options of these names take them.
        temp_location: folder on gs:// for temporary files; '' for the folder of the step.
    """

    image: str
    region: str = ""
    max_workers: int = 0
    machine_type: str = ""
    service_account: str = ""
    network: str = ""
    subnetwork: str = ""
    temp_location: str = ""

    @classmethod
    def from_json(cls, text: str) -> DataflowOptions:
        """The options that `to_json` wrote."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """The options as a constant of a compiled pipeline: what is not at its default."""
        default = asdict(DataflowOptions(image=""))
        return json.dumps({name: value for name, value in asdict(self).items() if value != default[name]})

    def words(self) -> Iterator[str]:
        """Beam's options, but for the places that depend on the run."""
        for name, value in (
            ("sdk_container_image", self.image),
            ("region", self.region),
            ("max_num_workers", self.max_workers),
            ("machine_type", self.machine_type),
            ("service_account_email", self.service_account),
            ("network", self.network),
            ("subnetwork", self.subnetwork),
        ):
            if value:
                yield f"--{name}={value}"
