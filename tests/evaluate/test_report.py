"""The report as a browser shows it: Debian's Chromium, at the width of a screen and of a narrow pane."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.evaluate.brightness import grey_examples, grey_png, save_model, save_shard
from tf_image_classification.data.manifest import DEFAULT_TASK
from tf_image_classification.evaluate import evaluate
from tf_image_classification.evaluate.report import _percent

SECTIONS = [
    "Confusion matrix",
    "Most confused classes",
    "Metrics per class",
    "Calibration and scores",
    "Most confident mistakes",
    "Model and data",
]
HOSTILE = (
    "<script>document.title = 'broken'</script>",
    "a class name that is long and longer " * 8 + "until it ends",
    "withoutanyplacetobreakaline" * 8,
    "$x^2$ and _under_",
    "_hidden",
    "Ünïcödé &amp; more",
)
CASES: dict[str, dict[str, Any]] = {
    "two classes": {"labels": ("no", "yes"), "examples": 60, "noise": 0.5},
    "no mistake": {"labels": ("dark", "middle", "light"), "examples": 30, "noise": 0.0},
    "hostile names": {"labels": HOSTILE, "examples": 60, "noise": 0.5},
    "40 classes": {"labels": tuple(f"kind of animal {i}" for i in range(40)), "examples": 300, "noise": 0.6},
    "200 classes": {"labels": tuple(f"class {i}" for i in range(200)), "examples": 250, "noise": 0.5},
}
FACTS = {
    "flags": {"train_steps": 500, "optimizer": "adam", "checkpoint_path": None},
    "warm_start": {
        "checkpoint": "models/inception_v3.ckpt",
        "loaded": 376,
        "not_loaded": ["Logits/biases", "Logits/weights"],
    },
    "metrics": {"accuracy": 0.9},
    "data_fingerprint": "trained-on-this",
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report per case, and one of several tasks."""
    root = tmp_path_factory.mktemp("reports")
    reports = {}
    for name, case in CASES.items():
        folder, tasks = root / name.replace(" ", "_"), {DEFAULT_TASK: case["labels"]}
        data = save_shard(
            folder / "data", grey_examples(case["labels"], case["examples"], noise=case["noise"]), tasks, rejected=2
        )
        evaluate(save_model(folder / "model", tasks, **FACTS), data, str(folder / "evaluation"), batch_size=32)
        reports[name] = folder / "evaluation" / "report.html"
    tasks = {"age": ("young", "old"), "shade": ("dark", "light"), "weight": ()}
    examples = [(f"{i}.png", grey_png(i % 2), {"age": i % 2, "shade": 0, "weight": 1}) for i in range(6)]
    folder = root / "several"
    evaluate(
        save_model(folder / "model", tasks),
        save_shard(folder / "data", examples, tasks),
        str(folder / "evaluation"),
        batch_size=4,
    )
    reports["several tasks"] = folder / "evaluation" / "report.html"
    return reports


def report_of(folder: Path, **facts: Any) -> Path:
    """The report on four images of a model with these entries in model.json."""
    tasks = {DEFAULT_TASK: ("dark", "light")}
    data = save_shard(folder / "data", grey_examples(("dark", "light"), 4), tasks)
    evaluate(save_model(folder / "model", tasks, **facts), data, str(folder / "evaluation"), batch_size=4)
    return folder / "evaluation" / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if path is None and not os.environ.get("CI"):
        pytest.skip("there is no chromium (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path or "chromium", args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Page:
    """An opened report and what happened while it loaded."""

    def __init__(self, browser: Any, report: Path, width: int, scheme: str = "light") -> None:
        self.messages: list[str] = []
        self.requests: list[str] = []
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = context.new_page()
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())

    def headings(self) -> list[str]:
        return self.page.locator("h2, h3").all_inner_texts()

    def has(self, expression: str) -> Any:
        return self.page.evaluate(expression)


@pytest.mark.parametrize("width", [1280, 600])
@pytest.mark.parametrize("case", [*CASES, "several tasks"])
def test_the_report_fits_its_window_and_loads_everything_without_a_network_request(browser, reports, case, width):
    opened = Page(browser, reports[case], width)
    assert opened.has("document.documentElement.scrollWidth <= innerWidth")
    assert opened.has(
        "[...document.querySelectorAll('section, .card, figure')].every(e => "
        "e.getBoundingClientRect().right <= innerWidth)"
    )
    assert opened.has("[...document.images].every(image => image.complete && image.naturalWidth > 0 && image.alt)")
    assert opened.has(
        "[...document.querySelectorAll('svg')].every(plot => plot.getBoundingClientRect().height > "
        "100 && plot.ariaLabel)"
    )
    assert opened.has(
        "new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size == "
        "document.querySelectorAll('[id]').length"
    )
    assert opened.messages == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("case", list(CASES))
def test_every_section_is_there(browser, reports, case):
    assert Page(browser, reports[case], 1280).headings() == SECTIONS


def test_several_tasks_have_a_section_each(browser, reports):
    headings = Page(browser, reports["several tasks"], 1280).headings()
    assert headings == ["Task age", *SECTIONS[:-1], "Task shade", *SECTIONS[:-1], "Task weight", "Model and data"]


def test_the_confusion_matrix_names_its_classes_and_shows_its_counts(browser, reports):
    page = Page(browser, reports["two classes"], 1280).page
    assert page.locator(".confusion thead th").all_inner_texts() == ["no", "yes"]
    assert page.locator(".confusion tbody tr").count() == 2
    counts = [int(text or 0) for text in page.locator(".confusion tbody td").all_inner_texts()]
    assert sum(counts) == 60
    assert page.locator(".mistakes img").count() == counts[1] + counts[2]


def test_a_large_confusion_matrix_becomes_an_image_and_its_class_table_scrolls(browser, reports):
    opened = Page(browser, reports["200 classes"], 600)
    assert opened.page.locator("table.confusion").count() == 0
    assert opened.page.locator("svg[aria-label*='heat map'] image").count() == 1
    assert opened.has(
        "(box => box.scrollHeight > box.clientHeight && box.clientHeight < 700)(document.querySelector('.tall'))"
    )


def test_there_are_at_most_24_mistakes_the_most_confident_first(browser, reports):
    page = Page(browser, reports["40 classes"], 1280).page
    scores = [
        float(text.split()[-2]) for text in page.locator(".mistakes figure .scored:first-child").all_inner_texts()
    ]
    assert len(scores) == 24
    assert scores == sorted(scores, reverse=True)


def test_a_report_without_mistakes_states_that_there_are_none(browser, reports):
    text = Page(browser, reports["no mistake"], 600).page.locator("main").inner_text()
    assert "No class was confused with another." in text
    assert "None: every image was classified correctly." in text
    assert "100.00\N{NO-BREAK SPACE}%" in text


def test_class_names_are_shown_as_text_whatever_they_contain(browser, reports):
    opened = Page(browser, reports["hostile names"], 1280)
    assert opened.page.title() == "Evaluation report: brightness"
    assert opened.page.locator("script").count() == 0
    names = opened.page.locator("table:not(.confusion) tbody th").all_inner_texts()
    assert set(names) == set(HOSTILE)


INJECTED = (
    "<script>document.title = 'broken'</script><img src=x onerror=\"document.title = 'broken'\">"
    '<img src="http://127.0.0.1:9/seen.png"><iframe src="http://127.0.0.1:9/frame"></iframe>'
)


def test_the_browser_runs_and_fetches_nothing_even_where_a_name_was_not_escaped(browser, reports, tmp_path):
    page = reports["two classes"].read_text().replace("<main>", f"<main>{INJECTED}")
    (tmp_path / "report.html").write_text(page)
    opened = Page(browser, tmp_path / "report.html", 1280)
    assert opened.page.title() == "Evaluation report: brightness"
    # The script, the handler, both images and the frame.
    assert [" has been blocked" in message for message in opened.messages] == [True] * 5
    (tmp_path / "open.html").write_text(page.replace("Content-Security-Policy", "ignored"))
    assert Page(browser, tmp_path / "open.html", 1280).page.title() == "broken"


def test_facts_of_the_training_are_shown(browser, reports):
    text = Page(browser, reports["two classes"], 1280).page.locator("main").inner_text()
    assert "models/inception_v3.ckpt (376 variables loaded, 2 not: Logits/biases, Logits/weights)" in text
    assert all(fact in text for fact in ("trained-on-this", "adam", "2 rejected by build_tfrecords"))


def test_the_gap_between_training_and_evaluation_is_shown(browser, tmp_path):
    of_training = {"loss": 0.25, "accuracy": 0.975, "only_here": 1.0}
    of_evaluation = {"loss": 1.5, "accuracy": 0.875, "global_step": 400}
    scored = {"train": 160, "eval": 96}
    opened = Page(
        browser, report_of(tmp_path, metrics=of_evaluation, train_metrics=of_training, scored_examples=scored), 600
    )
    assert "Training against evaluation" in opened.headings()
    table = opened.page.get_by_role("region", name="Training against evaluation")
    assert [row.split("\t") for row in table.locator("tr").all_inner_texts()] == [
        ["Metric", "Training", "Evaluation", "Gap"],
        ["loss", "0.25", "1.5", "+1.25"],
        ["accuracy", "0.975", "0.875", "\N{MINUS SIGN}0.1"],
    ]
    text = opened.page.locator("main").inner_text()
    assert "160 and 96 of them" in text
    assert [line for line in text.splitlines() if line.endswith("at the end of training")] == [
        "global_step at the end of training"
    ]


def test_facts_that_are_not_as_training_writes_them_are_left_out(tmp_path):
    page = report_of(
        tmp_path,
        metrics={"loss": "x", "accuracy": 0.5, "precision": 0.5, "recall": 10**400},
        train_metrics={"loss": 1.0, "accuracy": [1], "precision": 0.75, "recall": 0.5},
        scored_examples={"train": float("inf"), "eval": {}},
        warm_start={"checkpoint": "a.ckpt", "loaded": "many"},
    ).read_text()
    assert page.count('<th scope="row">precision') == 1 and '<th scope="row">loss' not in page
    assert "of them" not in page and "Warm start" not in page


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ("my_package.my_estimator:MyEstimator", "my_package.my_estimator:MyEstimator"),
        ("__main__:MyEstimator", "MyEstimator"),
    ],
)
def test_a_model_of_a_users_estimator_is_called_after_it(browser, tmp_path, recorded, shown):
    page = Page(browser, report_of(tmp_path, model_name=None, estimator=recorded), 1280).page
    assert page.title() == f"Evaluation report: {shown}"
    text = page.locator("main").inner_text()
    assert f"Estimator {shown}, 4 images" in text
    assert f"Estimator\n{shown}, 8 \N{MULTIPLICATION SIGN} 8 pixels" in text


def test_a_dark_screen_gets_a_dark_page_with_light_text_in_plots_too(browser, reports):
    page = Page(browser, reports["two classes"], 1280, scheme="dark").page

    def lightness(selector: str, attribute: str) -> float:
        colour = page.locator(selector).first.evaluate(f"element => getComputedStyle(element).{attribute}")
        return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) / 3

    assert lightness("body", "backgroundColor") < 50
    assert lightness("body", "color") > 200
    assert lightness(".plot svg text", "fill") > 200


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "50.00 %"), (1.0, "100.00 %"), (0.0, "0.00 %"), (0.999999, "> 99.99 %"), (0.000001, "< 0.01 %")],
)
def test_a_percentage_does_not_pretend_to_be_all_or_nothing(value: float, text: str):
    assert _percent(value) == text.replace(" %", "\N{NO-BREAK SPACE}%")
