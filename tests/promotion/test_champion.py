"""The model in service, kept in a folder."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.standin import bucket as standin
from tf_image_classification import storage
from tf_image_classification.errors import DataError, FlagError, UserError
from tf_image_classification.promotion import champion
from tf_image_classification.promotion.champion import InService


@pytest.fixture(scope="module")
def bucket():
    with standin.serving("bucket") as url, pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORAGE_EMULATOR_HOST", url)
        yield "gs://bucket"


@pytest.fixture(params=["local", "bucket"])
def champion_dir(request, tmp_path, bucket):
    """A champion folder that does not exist yet."""
    return str(tmp_path / "service") if request.param == "local" else f"{bucket}/{tmp_path.name}/service"


@pytest.fixture
def model(tmp_path):
    """Creates model folders, each with the digest of a letter."""

    def make(letter: str) -> str:
        folder = tmp_path / f"model-{letter}"
        (folder / "saved_model").mkdir(parents=True)
        (folder / "saved_model" / "saved_model.pb").write_text(letter)
        (folder / "model.json").write_text(json.dumps({"digest": letter * 64}))
        return str(folder)

    return make


def promote(champion_dir: str, model_dir: str, compared_with: str = "") -> InService:
    return champion.promote(champion_dir, model_dir, compared_with=compared_with, reason="accuracy is 0.9", run="run-1")


def test_there_is_no_model_in_service_at_first_and_then_the_promoted_one(champion_dir, model):
    assert champion.in_service(champion_dir) is None
    first = promote(champion_dir, model("a"))
    assert champion.in_service(champion_dir) == first
    assert storage.read_text(storage.join(first.folder, "saved_model", "saved_model.pb")) == "a"
    pointer = json.loads(storage.read_text(storage.join(champion_dir, "champion.json")))
    assert (pointer["run"], pointer["reason"]) == ("run-1", "accuracy is 0.9")


def test_the_previous_model_is_kept_and_can_be_put_in_service_again_by_hand(champion_dir, model):
    first = promote(champion_dir, model("a"))
    second = promote(champion_dir, model("b"), first.name)
    assert champion.in_service(champion_dir) == second
    storage.write_text(storage.join(champion_dir, "champion.json"), json.dumps({"model": first.name}))
    assert champion.in_service(champion_dir) == first


def test_a_model_that_was_compared_with_another_one_is_not_promoted(champion_dir, model):
    first = promote(champion_dir, model("a"))
    second = promote(champion_dir, model("b"), first.name)
    with pytest.raises(UserError, match="Another model was promoted"):
        promote(champion_dir, model("c"), first.name)
    with pytest.raises(UserError, match="Another model was promoted"):
        promote(champion_dir, model("d"))
    assert champion.in_service(champion_dir) == second


def test_promoting_the_model_in_service_again_changes_nothing(champion_dir, model):
    folder = model("a")
    first = promote(champion_dir, folder)
    before = storage.stat(storage.join(champion_dir, "champion.json"))
    assert promote(champion_dir, folder) == promote(champion_dir, folder, first.name) == first
    assert storage.stat(storage.join(champion_dir, "champion.json")) == before


def test_a_promotion_that_was_killed_between_copy_and_pointer_is_completed_by_the_next_call(champion_dir, model):
    folder = model("a")
    with storage.replacing_dir(storage.join(champion_dir, "models", "a" * 16), "model.json") as staging:
        shutil.copytree(folder, staging, dirs_exist_ok=True)
    assert champion.in_service(champion_dir) is None
    completed = promote(champion_dir, folder)
    assert champion.in_service(champion_dir) == completed


def test_a_folder_with_other_content_is_refused(champion_dir):
    with storage.replacing_dir(champion_dir, "thesis.txt") as staging:
        storage.write_text(storage.join(staging, "thesis.txt"), "x")
    with pytest.raises(FlagError, match=r"is not empty and has no champion\.json"):
        champion.in_service(champion_dir)


def test_a_pointer_to_a_missing_model_is_an_error_that_names_the_folder(champion_dir, model):
    promote(champion_dir, model("a"))
    storage.write_text(storage.join(champion_dir, "champion.json"), json.dumps({"model": "models/gone"}))
    with pytest.raises(DataError, match=r"The model in service was not found.*models/gone"):
        champion.in_service(champion_dir)
    storage.write_text(storage.join(champion_dir, "champion.json"), "{")
    with pytest.raises(DataError, match="cannot be read"):
        champion.in_service(champion_dir)


WRONG_POINTERS = [
    "[]",
    "1",
    "null",
    "{}",
    '{"model": null}',
    '{"model": ["models/a"]}',
    '{"model": ""}',
    '{"model": "models"}',
    '{"model": "models/"}',
    '{"model": "models/."}',
    '{"model": "models/.."}',
    '{"model": "models/../../secret"}',
    '{"model": "../secret"}',
    '{"model": "/etc"}',
    '{"model": "gs://other/model"}',
    r'{"model": "models\\..\\secret"}',
    r'{"model": "models/a\u0000"}',
    "\xff",
]


@pytest.mark.parametrize("content", WRONG_POINTERS)
def test_a_pointer_that_names_no_model_of_the_folder_is_an_error_that_names_it(content, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "model.json").write_text("{}")
    (tmp_path / "service" / "models").mkdir(parents=True)
    (tmp_path / "service" / "champion.json").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=r"champion\.json (cannot be read|names no model of its folder)"):
        champion.in_service(str(tmp_path / "service"))


def test_a_pointer_that_is_a_folder_is_an_error_that_names_it(tmp_path):
    (tmp_path / "champion.json").mkdir()
    with pytest.raises(DataError, match=r"champion\.json cannot be read. Received: a folder"):
        champion.in_service(str(tmp_path))


@pytest.mark.parametrize(
    "facts", [{}, {"digest": ""}, {"digest": "../../gone"}, {"digest": "a/b"}, {"digest": None}, []]
)
def test_a_model_without_a_digest_is_not_promoted(facts, champion_dir, tmp_path):
    (tmp_path / "model.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=r"model\.json (has no valid digest|cannot be read)"):
        promote(champion_dir, str(tmp_path))
    assert not storage.exists(champion_dir)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"checkpoint_path": "champion", "champion": None}, "--checkpoint_path needs a --champion"),
        (
            {"checkpoint_path": None, "champion": None, "endpoint": "projects/p/locations/l/endpoints/1"},
            "--endpoint needs a --champion",
        ),
        ({"checkpoint_path": None, "champion": "", "promote": False}, "--promote needs a --champion"),
        (
            {"checkpoint_path": None, "champion": "gs://b/c", "endpoint": "projects/p/locations/l/endpoints/1"},
            "Vertex AI's Model Registry",
        ),
        ({"checkpoint_path": None, "champion": "projects/p/models/m", "endpoint": "e"}, "Invalid value for --champion"),
        (
            {"checkpoint_path": None, "champion": f"projects/p/locations/l/models/{'m' * 64}"},
            "Invalid value for --champion",
        ),
        ({"checkpoint_path": None, "champion": "projects/p/locations/l/models/1m"}, "Invalid value for --champion"),
        (
            {"checkpoint_path": None, "champion": "projects/p/locations/l/models/m", "endpoint": "e"},
            "Invalid value for --endpoint",
        ),
        (
            {
                "checkpoint_path": None,
                "champion": "projects/p/locations/l/models/m",
                "endpoint": "projects/p/locations/k/endpoints/1",
            },
            "different projects or locations",
        ),
    ],
)
def test_flags_that_need_a_champion_are_refused_without_a_valid_one(given, message):
    with pytest.raises(FlagError, match=message):
        champion.check(**given)


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("checkpoint_path", "champion", False),
        ("checkpoint_path", "imagenet", False),
        ("checkpoint_path", "models/champion", True),
        ("champion", "projects/p/locations/l/models/m", False),
        ("champion", "gs://bucket/service", True),
        ("model_dir", "champion", True),
    ],
)
def test_the_model_in_service_and_a_model_of_the_registry_are_no_paths(flag, value, expected):
    assert champion.names_a_path(flag, value) is expected
