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
def home(request, tmp_path, bucket):
    """A place for the model in service that holds nothing yet."""
    return str(tmp_path / "service") if request.param == "local" else f"{bucket}/{tmp_path.name}/service"


@pytest.fixture
def model(tmp_path):
    """Makes a model folder; the letter tells it from others."""

    def make(letter: str) -> str:
        folder = tmp_path / f"model-{letter}"
        (folder / "saved_model").mkdir(parents=True)
        (folder / "saved_model" / "saved_model.pb").write_text(letter)
        (folder / "model.json").write_text(json.dumps({"digest": letter * 64}))
        return str(folder)

    return make


def put(home: str, folder: str, instead_of: str = "") -> InService:
    return champion.promote(home, folder, instead_of=instead_of, reason="accuracy is 0.9", run="run-1")


def test_there_is_none_at_first_and_then_the_one_that_was_put_there(home, model):
    assert champion.in_service(home) is None
    first = put(home, model("a"))
    assert champion.in_service(home) == first
    assert storage.read_text(storage.join(first.folder, "saved_model", "saved_model.pb")) == "a"
    pointer = json.loads(storage.read_text(storage.join(home, "champion.json")))
    assert (pointer["run"], pointer["reason"]) == ("run-1", "accuracy is 0.9")


def test_the_one_before_stays_and_can_be_put_back_by_hand(home, model):
    first = put(home, model("a"))
    second = put(home, model("b"), first.name)
    assert champion.in_service(home) == second
    storage.write_text(storage.join(home, "champion.json"), json.dumps({"model": first.name}))
    assert champion.in_service(home) == first


def test_a_model_that_was_compared_with_another_one_is_not_put_in_service(home, model):
    first = put(home, model("a"))
    second = put(home, model("b"), first.name)
    with pytest.raises(UserError, match="Another model has come into service"):
        put(home, model("c"), first.name)
    with pytest.raises(UserError, match="Another model has come into service"):
        put(home, model("d"))
    assert champion.in_service(home) == second


def test_putting_the_one_that_is_in_service_again_changes_nothing(home, model):
    folder = model("a")
    first = put(home, folder)
    before = storage.stat(storage.join(home, "champion.json"))
    assert put(home, folder) == put(home, folder, first.name) == first
    assert storage.stat(storage.join(home, "champion.json")) == before


def test_a_call_that_was_killed_between_copy_and_pointer_is_completed_by_the_next(home, model):
    folder = model("a")
    with storage.replacing_dir(storage.join(home, "models", "a" * 16), "model.json") as aside:
        shutil.copytree(folder, aside, dirs_exist_ok=True)
    assert champion.in_service(home) is None
    completed = put(home, folder)
    assert champion.in_service(home) == completed


def test_a_folder_of_something_else_is_refused(home):
    with storage.replacing_dir(home, "thesis.txt") as aside:
        storage.write_text(storage.join(aside, "thesis.txt"), "x")
    with pytest.raises(FlagError, match="holds something else"):
        champion.in_service(home)


def test_a_pointer_to_nothing_is_an_error_that_names_the_place(home, model):
    put(home, model("a"))
    storage.write_text(storage.join(home, "champion.json"), json.dumps({"model": "models/gone"}))
    with pytest.raises(DataError, match=r"The model in service is gone.*models/gone"):
        champion.in_service(home)
    storage.write_text(storage.join(home, "champion.json"), "{")
    with pytest.raises(DataError, match="cannot be read"):
        champion.in_service(home)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"checkpoint_path": "champion", "champion": None}, "--checkpoint_path needs a --champion"),
        (
            {"checkpoint_path": None, "champion": None, "endpoint": "projects/p/locations/l/endpoints/1"},
            "--endpoint needs a --champion",
        ),
        (
            {"checkpoint_path": None, "champion": "gs://b/c", "endpoint": "projects/p/locations/l/endpoints/1"},
            "Vertex AI's registry",
        ),
        ({"checkpoint_path": None, "champion": "projects/p/models/m", "endpoint": "e"}, "--champion names no model"),
        (
            {"checkpoint_path": None, "champion": f"projects/p/locations/l/models/{'m' * 64}"},
            "--champion names no model",
        ),
        ({"checkpoint_path": None, "champion": "projects/p/locations/l/models/1m"}, "--champion names no model"),
        (
            {"checkpoint_path": None, "champion": "projects/p/locations/l/models/m", "endpoint": "e"},
            "--endpoint names no endpoint",
        ),
        (
            {
                "checkpoint_path": None,
                "champion": "projects/p/locations/l/models/m",
                "endpoint": "projects/p/locations/k/endpoints/1",
            },
            "different places",
        ),
    ],
)
def test_what_asks_for_the_model_in_service_must_say_where_it_is(given, said):
    with pytest.raises(FlagError, match=said):
        champion.check(**given)
