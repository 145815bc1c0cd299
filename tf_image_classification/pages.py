"""Self-contained HTML pages from Jinja templates, every value escaped.

Each page forbids its browser scripts, network requests and forms: a name that was not escaped after all would do no
harm.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

# Pages have inline styles, also as attributes (the length of a bar), and images as data URIs; nothing else.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


@functools.cache  # to compile one takes longer than to render it
def template(package: str, name: str, **filters: Callable[..., Any]) -> jinja2.Template:
    """The template `name` in a package's `templates` folder. Rendering it without one of its variables is an error.

    Its head has the policy: <meta http-equiv="Content-Security-Policy" content="{{ content_security_policy }}">.

    Args:
        package: importable name of the package.
        name: file name of the template.
        filters: name -> function, for `value | name` in the template. It is compiled once for each set: no lambdas.
    """
    import jinja2  # takes 0.1 s, and most commands render no page

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    environment.globals["content_security_policy"] = CONTENT_SECURITY_POLICY
    return environment.get_template(name)
