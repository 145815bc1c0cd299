from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time

import pytest

from tf_image_classification import command_line, errors
from tf_image_classification import flags as flag_table
from tf_image_classification.errors import FlagError

COMMANDS = [
    ["-m", "tf_image_classification.build_tfrecords"],
    ["-m", "tf_image_classification.train_estimator"],
    ["-m", "tf_image_classification.evaluate"],
    ["-m", "pipelines"],
    ["-m", "pipelines", "compile"],
    ["-m", "pipelines", "run"],
]


def call(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, **options)


def parse(*arguments: str, command: str = flag_table.TRAIN):
    parser = command_line.Parser("test", "A test.")
    table = flag_table.of_command(command)
    parser.add_flags(table)
    return parser.parse_flags(table, arguments)


def test_a_glob_that_the_shell_expanded_keeps_every_file():
    parsed = parse(
        "--train_metadata", "train-0", "train-1", "train-2", "--eval_metadata", "eval-0", "--batch_size", "4"
    )
    assert parsed.train_metadata == "train-0,train-1,train-2"
    assert parsed.eval_metadata == "eval-0"
    assert parsed.batch_size == 4


@pytest.mark.parametrize(
    ("arguments", "value"),
    [(["--debug"], True), (["--debug", "true"], True), (["--debug=false"], False), (["--nodebug"], False), ([], False)],
)
def test_a_boolean_is_understood_in_every_form_of_the_original(arguments, value):
    assert parse(*arguments, "--batch_size", "2").debug is value


def test_metadata_that_is_given_twice_is_all_used():
    assert parse("--train_metadata", "a", "b", "--train_metadata", "c").train_metadata == "a,b,c"


def test_a_negative_number_is_a_value_not_a_flag():
    assert parse("--ftrl_learning_rate_power", "-0.3").ftrl_learning_rate_power == -0.3


@pytest.mark.parametrize("word", ["-0.3", "-3e-1", "-.3", "-3E-1", "-30e-2", "-0.30"])
def test_a_negative_number_is_one_in_every_form_that_the_flag_knows(word):
    assert parse("--ftrl_learning_rate_power", word).ftrl_learning_rate_power == -0.3


@pytest.mark.parametrize("word", ["-1e-3", "-.5", "-5.", "-inf", "-nan", "-1_0", "-1x"])
def test_a_negative_number_that_a_flag_does_not_allow_is_named_with_the_flag(word):
    with pytest.raises(FlagError, match="Invalid value for --batch_size") as error:
        parse("--batch_size", word)
    assert word in str(error.value)


def test_a_value_that_no_flag_takes_is_refused_not_dropped():
    with pytest.raises(FlagError, match="stray"):
        parse("--batch_size", "2", "stray")


def test_an_abbreviated_flag_is_refused():
    with pytest.raises(FlagError, match="--optim"):
        parse("--optim", "adam")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_quick_and_complete(command):
    best = min(timed_help(command) for _ in range(3))
    # Half a second is promised; heavy libraries take several, so the margin is for a busy machine only.
    assert best < 1.5


def timed_help(command: list[str]) -> float:
    started = time.monotonic()
    answer = call(*command, "--help")
    assert answer.returncode == 0, answer.stderr
    assert "usage" in answer.stdout
    return time.monotonic() - started


@pytest.mark.parametrize("command", COMMANDS[:3], ids=" ".join)
def test_help_imports_nothing_heavy(command):
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module({command[1]!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'matplotlib', 'kfp', 'google.cloud.storage'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    answer = call("-c", program)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("command", [COMMANDS[1], COMMANDS[5]], ids=" ".join)
def test_a_misspelt_flag_exits_with_2_and_suggests_the_right_one(command):
    answer = call(*command, "--optimzer", "adam")
    assert answer.returncode == 2
    assert "--optimizer" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--train_metadata", "{tmp}/nothing-*"], 2, ["{tmp}/nothing-*"]),
        (["--train_metadata", "{tmp}/missing.csv"], 2, ["{tmp}/missing.csv"]),
        (["--train_metadata", "{tmp}/one_class"], 1, ["class"]),
        ([], 2, ["--train_metadata is required"]),
    ],
    ids=["empty glob", "missing csv", "one class", "nothing"],
)
def test_bad_input_gives_one_clear_paragraph(tmp_path, arguments, code, words):
    from PIL import Image

    folder = tmp_path / "one_class" / "cat"
    folder.mkdir(parents=True)
    for number in range(8):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    filled = [argument.format(tmp=tmp_path) for argument in arguments]
    answer = call("-m", "tf_image_classification.build_tfrecords", *filled, "--output_dir", str(tmp_path / "out"))
    assert answer.returncode == code, answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stderr.count("error: ") == 1
    joined = " ".join(answer.stderr.split())
    for word in words:
        assert word.format(tmp=tmp_path) in joined
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_gives_one_clear_paragraph(tmp_path, image_folder):
    blocked = tmp_path / "file"
    blocked.write_text("")
    answer = call(
        "-m",
        "tf_image_classification.build_tfrecords",
        "--train_metadata",
        str(image_folder),
        "--output_dir",
        str(blocked / "out"),
    )
    assert answer.returncode == 2, answer.stderr
    assert "Traceback" not in answer.stderr
    assert str(blocked / "out") in answer.stderr


def test_a_closed_pipe_is_not_an_error_message():
    answer = subprocess.run(
        f"{sys.executable} -m pipelines --help | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert "Traceback" not in answer.stderr


def test_records_go_where_kfps_executor_logs_in_the_frameworks_format_and_its_handler_comes_back(capsys):
    executor = logging.StreamHandler(sys.stdout)
    executor.setFormatter(logging.Formatter("[KFP Executor] %(message)s"))
    root = logging.getLogger()
    before, root.handlers = root.handlers, [executor]
    try:
        with command_line.reporting_errors():
            logging.getLogger("tf_image_classification").info("of the framework")
        root.warning("of KFP")
    finally:
        root.handlers = before
    printed = capsys.readouterr()
    assert re.fullmatch(r"\d\d:\d\d:\d\d I of the framework\n\[KFP Executor\] of KFP\n", printed.out)
    assert printed.err == ""


def test_names_from_outside_are_escaped_where_a_terminal_would_act_on_them():
    assert errors.printable("caf\u00e9 au lait") == "caf\u00e9 au lait"
    assert errors.printable("a\x1b[31mb\r\n\udce9") == r"a\x1b[31mb\r\n\udce9"
    assert errors.abridged(["red", "\x07blue"]) == r"red, \x07blue"


# Clears the screen, sets the title, an OSC 8 link, an 8-bit CSI, right to left, back to the start of the line.
HOSTILE = "cat\x1b[2J\x1b]0;owned\x07\x1b]8;;http://x\x1b\\dog\x9b2J\u202egnp\rok"


def test_records_errors_and_tables_hold_nothing_that_a_terminal_acts_on(capsys):
    with pytest.raises(SystemExit), command_line.reporting_errors():
        logging.getLogger("test").warning("Class %s\n\tin %s", HOSTILE, "a folder")
        print(command_line.table(["class", "images"], [[HOSTILE, "1"], ["dog", "2"]]))
        raise errors.DataError("No image", received=HOSTILE)
    printed = capsys.readouterr()
    assert printed.err.count("cat\\x1b[2J\\x1b]0;owned\\x07") == 2
    assert printed.out.splitlines()[1].endswith("gnp\\rok  1")
    assert {c for c in printed.err + printed.out if not c.isprintable()} == {"\n", "\t"}
