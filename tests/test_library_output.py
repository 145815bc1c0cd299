from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

OUR_LINE = re.compile(r"\d\d:\d\d:\d\d I \S")


def environment(level: str | None = None) -> dict[str, str]:
    """The environment of a command; without a level, as on a user's machine rather than in the tests."""
    variables = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return variables | ({} if level is None else {"TF_CPP_MIN_LOG_LEVEL": level})


def call(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, **options)


def run(name: str, *arguments: str, level: str | None = None) -> subprocess.CompletedProcess[str]:
    return call("-m", f"tf_image_classification.{name}", *arguments, env=environment(level))


@pytest.mark.slow
def test_the_commands_print_their_own_lines_only(image_folder, tmp_path):
    data, model, evaluation = (str(tmp_path / name) for name in ("data", "model", "evaluation"))
    size = ("--image_size", "16", "--batch_size", "8", "--train_steps", "3")
    answers = [
        run("build_tfrecords", "--train_metadata", str(image_folder), "--output_dir", data),
        run("train_estimator", "--train_metadata", data, "--model_dir", model, *size),
        run(
            "evaluate",
            *("--model", f"{model}/export", "--eval_metadata", data, "--output_dir", evaluation),
        ),
    ]
    for answer in answers:
        assert answer.returncode == 0, answer.stderr
        lines = answer.stderr.splitlines()
        assert lines
        assert not [line for line in lines if not OUR_LINE.match(line)]
        assert len(answer.stdout.splitlines()) == 1


def test_an_error_is_the_last_paragraph_and_the_only_other_lines(image_folder, tmp_path):
    broken = tmp_path / "weights.keras"
    broken.write_text("nonsense")
    answer = run(
        "train_estimator",
        *("--train_metadata", str(image_folder), "--model_dir", str(tmp_path / "model"), "--image_size", "16"),
        *("--checkpoint_path", str(broken)),
        level="2",  # as a step inherits it from the pipeline's command
    )
    assert answer.returncode == 1
    own, _, paragraph = answer.stderr.partition("error: ")
    assert not [line for line in own.splitlines() if not OUR_LINE.match(line)]
    assert str(broken) in paragraph


@pytest.mark.slow
def test_level_0_shows_what_libraries_log(image_folder, tmp_path):
    answer = run(
        "train_estimator",
        *("--train_metadata", str(image_folder), "--model_dir", str(tmp_path / "model"), "--image_size", "16"),
        *("--train_steps", "1"),
        level="0",
    )
    assert answer.returncode == 0, answer.stderr
    assert "absl::InitializeLog()" in answer.stderr
    assert "Assets written to" in answer.stderr


def program(while_imported: str = "", afterwards: str = "pass") -> str:
    """A program that imports, in place of TensorFlow, a module with this code in a block with `reporting_errors`."""
    return (
        "import logging, os, sys, tempfile, warnings\n"
        "from tf_image_classification import command_line\n"
        "folder = tempfile.mkdtemp()\n"
        f"open(folder + '/tensorflow.py', 'w').write({'import os' + chr(10) + while_imported!r})\n"
        "sys.path.insert(0, folder)\n"
        "with command_line.reporting_errors():\n"
        "    import tensorflow\n"
        f"    {afterwards}\n"
    )


def test_errors_of_cpp_code_and_text_of_any_other_kind_pass():
    lines = (
        "I0000 00:00:1.5   7 a.cc:1] info",
        "To enable the following instructions: AVX, in other operations, rebuild TensorFlow with flags",
        "W0000 00:00:1.5   7 a.cc:1] warning",
        "2026-11-28 13:19:07.32: W tensorflow/a.cc:1] warning",
        "E0000 00:00:1.5   7 a.cc:1] real",
        "2026-11-28 13:19:07.32: E tensorflow/a.cc:1] real",
        "Information of no known form",
    )
    text = "".join(f"{line}\n" for line in lines)
    shown = call("-c", program(f"os.write(2, {text.encode()!r})")).stderr.splitlines()
    assert shown == list(lines[-3:])


def test_the_message_of_an_import_that_aborts_is_shown():
    text = b"I0000 00:00:1.5   7 a.cc:1] info\nF0000 00:00:1.5   7 a.cc:1] no AVX\n"
    answer = call("-c", program(f"os.write(2, {text!r}); os.abort()"))
    assert answer.returncode != 0
    assert "no AVX" in answer.stderr
    assert "info" not in answer.stderr


def test_an_import_that_fails_is_reported_as_ever():
    answer = call("-c", program("raise ImportError('no such library')"))
    assert answer.returncode == 1
    assert answer.stderr.rstrip().endswith("ImportError: no such library")


def test_records_and_an_error_come_in_their_order():
    body = (
        "logging.info('first'); "
        "raise __import__('tf_image_classification.errors', fromlist=['DataError']).DataError('second')"
    )
    shown = call("-c", program(afterwards=body)).stderr.splitlines()
    assert [line.split()[-1] for line in shown] == ["first", "second."]


def test_a_warning_about_the_users_own_code_is_shown_and_one_of_a_library_is_not():
    body = (
        "warnings.warn_explicit('mine', UserWarning, 'my.py', 1, module='my_estimator'); "
        "warnings.warn_explicit('theirs', UserWarning, 'keras.py', 1, module='keras.src.optimizers'); "
        "logging.getLogger('absl').warning('theirs')"
    )
    answer = call("-c", program(afterwards=body))
    assert "mine" in answer.stderr
    assert "theirs" not in answer.stderr


def test_a_command_that_does_not_import_tensorflow_starts_no_process():
    body = (
        "from tf_image_classification import command_line\n"
        "import os, sys\n"
        "with command_line.reporting_errors():\n"
        "    assert 'subprocess' not in sys.modules\n"
    )
    assert call("-c", body).returncode == 0


def test_stderr_is_a_terminal_for_python_where_it_was_one():
    """Otherwise no progress bar would be drawn."""
    import pty

    ours, theirs = pty.openpty()
    code = program(afterwards="print('a terminal' if sys.stderr.isatty() else 'none', file=sys.stderr)")
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 10_000)
    os.close(ours)
    assert b"a terminal" in shown
