"""What a build of many photographs takes, by measured rates and public prices: `python -m benchmarks.cost` prints it.

The images are objects in a folder of classes on gs://. It prints a table for docs/scale.md, which has the assumptions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from tf_image_classification.build_tfrecords.engines import CHUNK
from tf_image_classification.build_tfrecords.shards import SHARD_BYTES
from tf_image_classification.data.sources.listing import PARALLEL_LISTINGS

_HOUR = 3600.0
_MONTH = 730.0  # hours
_PAGE = 1000  # objects of a listing
_CHUNKS_PER_FILE, _RESULTS_PER_FILE = 100, 1000  # see beam_engine and beam_pipeline


@dataclass(frozen=True)
class Rates:
    """Per image, in processor seconds of one core unless it says otherwise, as docs/scale.md measured them.

    Attributes:
        listing: of objects in a bucket, and reading them as images of classes.
        fingerprint: of objects in a bucket, with its listing.
        csv: reading a CSV of objects, twice, and its fingerprint.
        index: splits, class names, duplicates by name.
        order: the images in the order of the shards, and counting their results.
        results: messages to workers of the same machine and back, and where their records go.
        near_duplicates: the search for them.
        download: an object of 110 kB.
        check: decode a photograph of 110 kB to its last row, and write its record.
        messages: to and from a Beam pipeline, as JSON.
        work_bytes: of temporary databases and files of the machine that starts the build.
        page_seconds: until a page of a listing has come; assumed.
        write_seconds: until a small object has been written; assumed.
        overhead: of reading, shuffling and writing on Beam, as a factor of `download` and `check`; assumed.
    """

    listing: float = 11.5e-6
    fingerprint: float = 11.5e-6
    csv: float = 31e-6
    index: float = 32.5e-6
    order: float = 11.3e-6
    results: float = 8e-6
    near_duplicates: float = 10.5e-6
    download: float = 1.1e-3
    check: float = 0.9e-3
    messages: float = 20e-6
    work_bytes: float = 1200
    page_seconds: float = 0.15
    write_seconds: float = 0.1
    overhead: float = 1.5


@dataclass(frozen=True)
class Prices:
    """US dollars, of us-central1, on demand, without discounts."""

    class_a: float = 0.005 / 1000  # an insert, a copy, a page of a listing
    class_b: float = 0.0004 / 1000  # reading an object
    storage: float = 0.020  # a GB for a month
    machine: float = 1.554  # an hour of n2-standard-32
    small_machine: float = 0.389  # an hour of n2-standard-8
    disk: float = 0.10  # a GB of pd-balanced for a month
    dataflow_vcpu: float = 0.056  # an hour
    dataflow_memory: float = 0.003557  # a GB for an hour
    dataflow_shuffle: float = 0.011  # a GB that is written or read


RATES, PRICES = Rates(), Prices()
MACHINE_VCPUS, WORKER_MEMORY = 32, 3.75  # of n2-standard-32; GB for a vCPU of n1-standard


@dataclass(frozen=True)
class Estimate:
    """What a build takes, on one machine (n2-standard-32) or on Dataflow, which an n2-standard-8 starts.

    Attributes:
        shards: number.
        listings, metadata, checking, near_duplicates: hours of resolve's and the build's listings and the fingerprint;
            of the index; of reading, checking and writing; of the search.
        csv: hours, instead of `listings`, of a CSV of the objects.
        vcpu_hours: of `checking`.
        starting_disk: GB of the machine that starts the build.
        class_a, class_b: requests to Cloud Storage.
        compute, requests, shuffle, month: dollars: machines with their disks; requests; Dataflow's shuffle; keeping the
            shards for a month.
    """

    shards: int
    listings: float
    csv: float
    metadata: float
    checking: float
    near_duplicates: float
    vcpu_hours: float
    starting_disk: float
    class_a: int
    class_b: int
    compute: float
    requests: float
    shuffle: float
    month: float

    @property
    def hours(self) -> float:
        """Of the whole build."""
        return self.listings + self.metadata + self.checking + self.near_duplicates

    @property
    def total(self) -> float:
        """Dollars, without keeping the shards."""
        return self.compute + self.requests + self.shuffle


def of_one_machine(images: int, image_bytes: int, rates: Rates = RATES, prices: Prices = PRICES) -> Estimate:
    """A build by the processes of one n2-standard-32.

    Args:
        image_bytes: of one image, on average; processor time grows with it.
    """
    gigabytes, shards = images * image_bytes / 1e9, _shards(images, image_bytes)
    vcpu_hours = images * _per_image(image_bytes, rates) / _HOUR
    # One process takes the results: with many cores it is the limit.
    checking = max(vcpu_hours / MACHINE_VCPUS, images * (rates.order + rates.results) / _HOUR)
    listings, metadata, near = _of_starting_machine(images, rates)
    disk = gigabytes + images * rates.work_bytes / 1e9
    hours = listings + metadata + checking + near
    class_a, class_b = _listing_pages(images) + shards, images
    return Estimate(
        shards=shards,
        listings=listings,
        csv=_of_csv(images, rates),
        metadata=metadata,
        checking=checking,
        near_duplicates=near,
        vcpu_hours=vcpu_hours,
        starting_disk=disk,
        class_a=class_a,
        class_b=class_b,
        compute=hours * (prices.machine + disk * prices.disk / _MONTH),
        requests=class_a * prices.class_a + class_b * prices.class_b,
        shuffle=0.0,
        month=gigabytes * prices.storage,
    )


def of_dataflow(images: int, image_bytes: int, vcpus: int, rates: Rates = RATES, prices: Prices = PRICES) -> Estimate:
    """A build on Dataflow with workers of so many vCPUs together, started by an n2-standard-8.

    Args:
        image_bytes: as of `of_one_machine`.
    """
    gigabytes, shards = images * image_bytes / 1e9, _shards(images, image_bytes)
    vcpu_hours = images * _per_image(image_bytes, rates) * rates.overhead / _HOUR
    chunk_files = -(-images // (CHUNK * _CHUNKS_PER_FILE))
    messages = (images * (rates.messages + rates.order) + chunk_files * rates.write_seconds) / _HOUR
    listings, metadata, near = _of_starting_machine(images, rates)
    disk = images * rates.work_bytes / 1e9
    checking = vcpu_hours / vcpus + messages
    hours = listings + metadata + checking + near
    files = chunk_files + -(-images // (CHUNK * _RESULTS_PER_FILE))
    class_a, class_b = _listing_pages(images) + 2 * shards + files, images + files
    workers = vcpu_hours * (prices.dataflow_vcpu + WORKER_MEMORY * prices.dataflow_memory)
    return Estimate(
        shards=shards,
        listings=listings,
        csv=_of_csv(images, rates),
        metadata=metadata,
        checking=checking,
        near_duplicates=near,
        vcpu_hours=vcpu_hours,
        starting_disk=disk,
        class_a=class_a,
        class_b=class_b,
        compute=workers + hours * (prices.small_machine + disk * prices.disk / _MONTH),
        requests=class_a * prices.class_a + class_b * prices.class_b,
        shuffle=2 * gigabytes * prices.dataflow_shuffle,
        month=gigabytes * prices.storage,
    )


def table(images: int, image_bytes: int, vcpus: int) -> str:
    """A Markdown table of both."""
    one, dataflow = of_one_machine(images, image_bytes), of_dataflow(images, image_bytes, vcpus)
    rows = [
        ("shards", "shards", "{:,}"),
        ("listing and fingerprint, hours", "listings", "{:.1f}"),
        ("(of a CSV of the objects instead, hours)", "csv", "{:.1f}"),
        ("splits, class names, order, hours", "metadata", "{:.1f}"),
        ("reading, checking, writing, hours", "checking", "{:.1f}"),
        ("near duplicates, hours", "near_duplicates", "{:.1f}"),
        ("all of it, hours", "hours", "{:.1f}"),
        ("vCPU-hours of reading, checking, writing", "vcpu_hours", "{:,.0f}"),
        ("disk of the machine that starts it, GB", "starting_disk", "{:,.0f}"),
        ("requests of class A (listing, writing)", "class_a", "{:,}"),
        ("requests of class B (reading)", "class_b", "{:,}"),
        ("machines and disks, USD", "compute", "{:,.0f}"),
        ("requests, USD", "requests", "{:,.0f}"),
        ("Dataflow Shuffle, USD", "shuffle", "{:,.0f}"),
        ("**all of it, USD**", "total", "**{:,.0f}**"),
        ("keeping the shards for a month, USD", "month", "{:,.0f}"),
    ]
    lines = [
        f"| {images:,} photographs of {image_bytes / 1000:g} kB | one n2-standard-32 | Dataflow, {vcpus:,} vCPUs |",
        "|---|---|---|",
    ]
    for title, name, form in rows:
        values = " | ".join(form.format(getattr(estimate, name)) for estimate in (one, dataflow))
        lines.append(f"| {title} | {values} |")
    return "\n".join(lines)


def _shards(images: int, image_bytes: int) -> int:
    """A shard is full with the record that reaches its size."""
    return max(1, int(images * image_bytes / (SHARD_BYTES + image_bytes / 2)))


def _per_image(image_bytes: int, rates: Rates) -> float:
    """Processor seconds of reading and checking, which grow with an image's size."""
    return rates.download + rates.check * image_bytes / 110_000


def _listing_pages(images: int) -> int:
    """Pages of the two listings: that of the fingerprint, which resolve makes, and that of the build."""
    return 2 * -(-images // _PAGE)


def _of_csv(images: int, rates: Rates) -> float:
    """Hours of reading a CSV of objects that lie close together, and of its fingerprint, which lists them."""
    return (images * rates.csv + images / _PAGE / PARALLEL_LISTINGS * rates.page_seconds) / _HOUR


def _of_starting_machine(images: int, rates: Rates) -> tuple[float, float, float]:
    """Hours of listings with the fingerprint, of the index and of near duplicates: one process does them."""
    waiting = _listing_pages(images) * rates.page_seconds
    listings = waiting + images * (rates.listing + rates.fingerprint)
    return listings / _HOUR, images * rates.index / _HOUR, images * rates.near_duplicates / _HOUR


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table.

    Args:
        argv: the arguments; default `sys.argv[1:]`.
    """
    parser = argparse.ArgumentParser("python -m benchmarks.cost", description=__doc__)
    parser.add_argument("--images", type=int, default=100_000_000, help="number (default: %(default)s)")
    parser.add_argument("--image_bytes", type=int, default=110_000, help="of one, on average (default: %(default)s)")
    parser.add_argument("--vcpus", type=int, default=400, help="of Dataflow's workers together (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if min(arguments.images, arguments.image_bytes, arguments.vcpus) < 1:
        parser.error("the numbers have to be at least 1")
    print(table(arguments.images, arguments.image_bytes, arguments.vcpus))


if __name__ == "__main__":
    main()
