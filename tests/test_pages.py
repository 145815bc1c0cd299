"""Every page that a step writes forbids its browser scripts and network requests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tf_image_classification
from tf_image_classification import pages

_ROOT = Path(tf_image_classification.__file__).parent
PAGES = [path for path in sorted(_ROOT.glob("**/templates/*.html")) if "<head>" in path.read_text()]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_policy_against_scripts_and_requests_precedes_all_content(path):
    head = path.read_text().partition("<head>")[2].split("\n")[1:3]
    assert head == [
        '<meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" content="{{ content_security_policy }}">',
    ]
    policy = dict(part.strip().split(" ", 1) for part in pages.CONTENT_SECURITY_POLICY.split(";"))
    assert policy == {
        "default-src": "'none'",  # scripts, frames, fonts, fetch
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_attribute_with_a_value_is_quoted_and_no_value_becomes_an_address(path):
    text = path.read_text()
    assert not re.search(r"=\s*{{", text)
    assert not re.search(r"\bhref=|\bon[a-z]+=|\| *safe\b", text)
    assert set(re.findall(r'src="([^"{]*)', text)) <= {"data:image/jpeg;base64,"}
