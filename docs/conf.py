"""The manual: `make docs` builds it with Sphinx, and every warning is an error.

The pages are plain Markdown, to be read on GitHub as well. Sphinx adds the reference: each table of api.md lists public
names that belong together, and becomes a page of their docstrings. A public name that no table lists is an error.
"""

import inspect
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from sphinx.util.inspect import stringify_signature

import detfeed
import detfeed.models

DOCS = Path(__file__).parent
API = (DOCS / "api.md").read_text()
# Every public name as it is imported, and what it is.
PUBLIC: dict[str, Any] = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (detfeed, detfeed.models)
    for name in module.__all__
}
# Those that are links wherever they stand as code. Not the functions of models: in the text, `train` is something else.
LINKED = {
    name.rpartition(".")[2]: name
    for name, thing in PUBLIC.items()
    if inspect.isclass(thing) or not name.startswith("detfeed.models.")
}
# Autodoc looks for a module under the name it documents, and the file of this one is elsewhere.
sys.modules["detfeed.recipes"] = detfeed.recipes

project = "detfeed"
release = detfeed.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
highlight_language = "none"
default_role = "py:obj"  # `name` in a docstring is a link where the name is public
python_maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"
myst_heading_anchors = 3  # those of GitHub
autodoc_inherit_docstrings = False  # those of Keras are Markdown
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # docstrings give dtypes and shapes
napoleon_numpy_docstring = False
# Returns as text: a colon in it ends no type.
napoleon_custom_sections = [
    "Returns",
    "Call returns",
    *((name, "params_style") for name in ("Attributes", "Call args")),
]
html_theme = "furo"
html_title = f"detfeed {release}"
html_static_path = ["static"]
html_css_files = ["manual.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False


def directive(name: str) -> str:
    """The directive that documents a public name."""
    if name not in PUBLIC:
        raise ExtensionError(f"docs/api.md: expected public names in its tables, got {name}")
    thing = PUBLIC[name]
    if inspect.ismodule(thing):
        own = [
            each for each, one in vars(thing).items() if inspect.isfunction(one) and one.__module__ == thing.__name__
        ]
        return f".. automodule:: {name}\n   :members: {', '.join(own)}\n"
    if not inspect.isclass(thing):
        return f".. autofunction:: {name}\n"
    if issubclass(thing, Exception):
        return f".. autoexception:: {name}\n"
    members = "" if thing.__base__ is dict else "   :members:\n"  # the docstring of a TypedDict has its keys
    return f".. autoclass:: {name}\n{members}"


def reference_pages() -> dict[str, str]:
    """A page of Markdown for each table of api.md, by its file's name without suffix."""
    pages = {}
    for title, section in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", API, re.MULTILINE | re.DOTALL):
        package = "detfeed.models" if title == "Models" else "detfeed"
        cells = " ".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))
        body = "\n".join(directive(f"{package}.{name}") for name in re.findall(r"`(\w+)`", cells))
        pages[title.lower().replace(" ", "_")] = f"# {title}\n\n```{{eval-rst}}\n{body}```\n"
    return pages


def write_reference(app: Sphinx) -> None:
    """Write the pages into docs/reference, which git ignores."""
    folder = DOCS / "reference"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, page in reference_pages().items():
        (folder / f"{name}.md").write_text(page)


def add_reference(app: Sphinx, name: str, content: list[str]) -> None:
    """Let api.md have the pages of the reference below it."""
    if name == "api":
        entries = "\n".join(f"reference/{page}" for page in reference_pages())
        content[0] += f"\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n"


def find_missing(app: Sphinx, env: Any) -> None:
    """Warn of public names without a place in the reference."""
    found = env.domains.python_domain
    for name in sorted(set(PUBLIC) - set(found.objects) - set(found.modules)):
        logging.getLogger(__name__).warning("expected every public name in a table, lacks %s", name, location="api")


def sign(app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str, returns: str) -> Any:
    """Give classes the signature of `__init__`: Keras's `__new__` takes anything."""
    if not (inspect.isclass(thing) and inspect.isfunction(thing.__init__)):
        return None
    taken = inspect.signature(thing.__init__)
    arguments = [each.replace(annotation=each.empty) for each in list(taken.parameters.values())[1:]]
    return stringify_signature(taken.replace(parameters=arguments, return_annotation=taken.empty)), None


class LinkNames(SphinxTransform):
    """Make links of the public names that stand as code in a page's text."""

    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        for literal in list(self.document.findall(nodes.literal)):
            name = LINKED.get(re.split(r"[(]", literal.astext())[0])
            if name and not isinstance(literal.parent, nodes.title | nodes.reference | pending_xref):
                link = pending_xref("", refdomain="py", reftype="obj", reftarget=name, refexplicit=True)
                literal.replace_self(link)
                link += literal


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", write_reference)
    app.connect("source-read", add_reference)
    app.connect("env-check-consistency", find_missing)
    app.connect("autodoc-process-signature", sign)
    app.add_transform(LinkNames)
