"""CSVs as people have them: each is read, or refused before an image is read, in words that fit."""

from __future__ import annotations

import pytest

from tests.conftest import SHARED_CASES
from tests.data.test_sources import entries, names, write
from tf_image_classification.data import sources
from tf_image_classification.data.sources import Entry, Rejected
from tf_image_classification.errors import DataError, FlagError

BODY = "img/a.jpg,cat\nimg/b.jpg,dog\n"
READ = [("img/a.jpg", "cat"), ("img/b.jpg", "dog")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("rest", ["", 'img/e.jpg,"cat"{0}', 'img/e".jpg,cat{0}img/f.jpg,dog"{0}'])
def test_a_quote_that_is_not_closed_on_its_line_is_an_error_that_names_the_line(tmp_path, end, rest):
    table = write(
        tmp_path / "images.csv",
        f'path,label{end}{end}img/a.jpg,cat{end}"img/b.jpg,cat{end}img/c.jpg,dog{end}img/d.jpg,cat{end}'
        + rest.format(end),
    )
    with pytest.raises(DataError, match=r"double quote in the CSV is not closed on its line.*images\.csv, line 4\."):
        entries(table)


def test_a_quote_is_found_however_far_down_it_is(tmp_path):
    lines = [f"img/{number}.jpg,cat" for number in range(3000)]
    lines[2718] = '"' + lines[2718]
    with pytest.raises(DataError, match=r"images\.csv, line 2719\."):
        entries(write(tmp_path / "images.csv", "\n".join(lines)))


def test_quotes_that_belong_to_a_field_are_kept(tmp_path):
    table = write(tmp_path / "images.csv", 'a "x".jpg,cat\n"5"" disk.jpg",dog\n"b.jpg" , "cat, black"\n')
    assert names(table) == [('a "x".jpg', "cat"), ('5" disk.jpg', "dog"), ("b.jpg", "cat, black")]


@pytest.mark.parametrize(
    "header",
    [
        "path",
        "URIs",
        "image_id",
        "Image ID",
        "filepath",
        "img",
        "file_name",
        "image_name",
        "Image-URI",
        "gcs_uri",
        "url",
    ],
)
def test_a_header_in_the_words_that_people_use_is_no_image(tmp_path, header):
    assert names(write(tmp_path / "images.csv", f"{header},label\n{BODY}")) == READ


@pytest.mark.parametrize("header", ["foto,klasse", "pic_no,label", "key,class", "thing,Category", "x,kind"])
def test_a_header_of_unknown_words_is_an_error_that_quotes_it(tmp_path, header):
    with pytest.raises(DataError, match=f"seems to be a header.*images.csv, line 1: {header}.*called path, image"):
        entries(write(tmp_path / "images.csv", f"{header}\n{BODY}"))


def test_a_first_line_that_is_an_image_is_no_header(tmp_path):
    write(tmp_path / "portrait")
    table = write(tmp_path / "images.csv", f"portrait,label\n{BODY}")
    assert names(table) == [("portrait", "label"), *READ]


@pytest.mark.parametrize(
    ("header", "hint"), [("label,path", "Put the column of paths first"), (",path,label", r"to_csv\(index=False\)")]
)
def test_paths_that_are_not_in_the_first_column_are_an_error(tmp_path, header, hint):
    body = BODY if header == "label,path" else "0,img/a.jpg,cat\n1,img/b.jpg,dog\n"
    with pytest.raises(DataError, match=f"first column of the CSV is not that of the paths.*{header}.*{hint}"):
        entries(write(tmp_path / "images.csv", f"{header}\n{body}"))


def test_a_header_that_is_repeated_is_rejected_by_its_line(tmp_path):
    table = write(tmp_path / "images.csv", f"path,label\n{BODY}\ufeffPath,Label\nimg/c.jpg,dog\n")
    assert entries(table)[2] == Rejected(f"{table}:4", "repeats the header")
    assert names(table) == [*READ, ("img/c.jpg", "dog")]


@pytest.mark.parametrize("line", ["sep=,", '"sep=,"', "SEP=,"])
def test_the_separator_that_excel_writes_first_is_skipped(tmp_path, line):
    assert names(write(tmp_path / "images.csv", f"{line}\r\npath,label\r\n{BODY}")) == READ


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("images.csv", BODY.replace(",", ";")),
        ("images.csv", "path;label\n" + BODY.replace(",", ";")),
        ("images.csv", "sep=;\n" + BODY.replace(",", ";")),
        ("images.csv", BODY.replace(",", "\t")),
        ("images.tsv", "path\tlabel\n" + BODY.replace(",", "\t")),
        ("images.tsv", BODY),
        ("images.txt", BODY.replace(",", "\t")),
        ("images.txt", BODY.replace(",", " ")),
        ("images.TXT", BODY),
    ],
)
def test_columns_are_separated_by_commas_semicolons_tabs_and_in_a_txt_by_spaces(tmp_path, name, content):
    assert names(write(tmp_path / name, content)) == READ


def test_a_comma_in_a_path_is_no_separator_where_others_are(tmp_path):
    assert names(write(tmp_path / "a.csv", "img/a,1.jpg;cat\nb.jpg;dog\n")) == [
        ("img/a,1.jpg", "cat"),
        ("b.jpg", "dog"),
    ]
    assert names(write(tmp_path / "b.tsv", "img/a, 1.jpg\tcat\n")) == [("img/a, 1.jpg", "cat")]
    assert names(write(tmp_path / "c.csv", "a.jpg,cat;black\nb.jpg,dog;brown\n"))[0] == ("a.jpg", "cat;black")


def test_a_list_of_class_names_is_no_list_of_images(tmp_path):
    with pytest.raises(DataError, match="single column"):
        entries(write(tmp_path / "labels.txt", "cat\ndog\nowl\n"))


def test_one_hot_columns_are_refused_in_these_words_and_two_binary_tasks_are_not(tmp_path):
    lines = "a.jpg,0,1\nb.jpg,1,0\nc.jpg,1.0,0\n"
    with pytest.raises(DataError, match=r"one-hot: a column per class.*filename,green,red.*idxmax"):
        entries(write(tmp_path / "images.csv", f"filename,green,red\n{lines}"))
    table = write(tmp_path / "faces.csv", f"path,smiling,young\n{lines}d.jpg,1,1\n")
    assert sources.task_names(sources.expand(table)) == ("smiling", "young")


@pytest.mark.parametrize("column", ["split", "Set", "subset", "fold", "partition", "ml_use", "is_valid"])
def test_a_column_of_splits_is_no_task(tmp_path, column):
    table = write(tmp_path / "images.csv", f"path,label,{column}\na.jpg,cat,train\n")
    with pytest.raises(FlagError, match=f"column {column} seems to name the split.*--split_column {column}"):
        entries(table)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-16", "UTF-16LE"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
        ("utf-32", "UTF-32LE"),
    ],
)
def test_an_encoding_other_than_utf_8_is_named(tmp_path, encoding, name):
    with pytest.raises(DataError, match=f"is in {name}.*CSV UTF-8.*iconv -f {name}"):
        entries(write(tmp_path / "images.csv", f"path,label\n{BODY}".encode(encoding)))


def test_nul_bytes_are_an_error_that_names_the_line(tmp_path):
    with pytest.raises(DataError, match=r"NUL bytes.*images\.csv, line 2"):
        entries(write(tmp_path / "images.csv", "a.jpg,cat\nb.jpg\0,dog\n"))


def test_paths_of_windows_and_of_other_services_are_rejected_in_words_and_a_backslash_may_be_part_of_a_name(tmp_path):
    write(tmp_path / "odd\\name.jpg")
    table = write(
        tmp_path / "images.csv", "C:\\data\\a.jpg,cat\nimg\\b.jpg,cat\nodd\\name.jpg,dog\nhttps://x.org/c.jpg,cat\n"
    )
    assert entries(table) == [
        Rejected("C:\\data\\a.jpg", "file not found: Windows path, with backslashes"),
        Rejected("img\\b.jpg", "file not found: Windows path, with backslashes"),
        Entry(str(tmp_path / "odd\\name.jpg"), "odd\\name.jpg", ("dog",)),
        Rejected("https://x.org/c.jpg", "not a local, gs:// or s3:// path"),
    ]


def test_every_line_is_accounted_for(tmp_path):
    table = write(tmp_path / "images.csv", 'path,label\na.jpg,cat\n,\n"",""\n   \n,dog\nb.jpg\nc.jpg,dog,x\n')
    assert len(entries(table)) == 6


def test_the_shared_cases_are_read_or_refused_in_words():
    folder = SHARED_CASES / "csv"
    if not folder.is_dir():
        pytest.skip("the shared cases are not here")
    refused = {
        "header_onehot.csv": "one-hot",
        "header_split.csv": "--split_column split",
        "nul.csv": "NUL bytes.*line 3",
        "stray_quote.csv": "double quote.*line 4",
        "utf16le_nobom.csv": "UTF-16LE",
    }
    for path in sorted(folder.iterdir()):
        if path.name in refused:
            with pytest.raises((DataError, FlagError), match=refused[path.name]):
                entries(str(path))
        else:
            lines = [line for line in path.read_bytes().splitlines() if line.strip()]
            preamble = sum(line.startswith((b"sep=", b"path", b"file", b"im")) and b"/" not in line for line in lines)
            repeated = path.name == "header_twice.csv"
            assert len(entries(str(path))) == len(lines) - preamble + repeated, path.name


def test_bounding_boxes_are_no_labels(tmp_path):
    table = write(tmp_path / "boxes.csv", "filename,width,class,xmin,ymin\na.jpg,640,cat,1,2\nb.jpg,640,dog,1,2\n")
    with pytest.raises(DataError, match=r"for object detection.*boxes\.csv: .*, with xmin, ymin\."):
        entries(table)


def test_paths_in_the_second_column_of_a_csv_without_a_header_are_named(tmp_path):
    table = write(tmp_path / "images.csv", "cat,img/a.jpg\ndog,img/b.png\n")
    with pytest.raises(DataError, match=r"paths are in the second column.*images\.csv, line 1: cat,img/a\.jpg"):
        entries(table)


def test_a_header_below_a_title_is_named(tmp_path):
    table = write(tmp_path / "images.csv", f"# exported on Monday\n\npath,label\n{BODY}")
    with pytest.raises(DataError, match=r"not on its first line.*# exported on Monday; the header on line 3\."):
        entries(table)
