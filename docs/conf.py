"""Sphinx: the site (`nox -s docs`), and with the tag `pdf` the PDF (`nox -s pdf`).

The source folder is the whole repository, so that the links between its files hold on
the site as they do in the checkout. No page needs a network, not for a font either.

myst-nb and not sphinx-gallery: everything here is Markdown, the tutorials' text and
formulas included, and a tutorial is a notebook as it stands; sphinx-gallery wants
reStructuredText.
"""

import hashlib
import importlib.metadata
import inspect
import os
import pathlib
import re
import sys

from docutils import nodes

import hw3tf

ROOT = pathlib.Path(__file__).parents[1]
PDF, QUICK = tags.has("pdf"), tags.has("quick")  # noqa: F821, given by Sphinx
sys.path.insert(0, str(ROOT / "docs"))  # stored_runs

project = "hw3tf"
author = copyright = "the hw3tf authors"
release = hw3tf.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_design"]
root_doc = "docs/pdf" if PDF else "docs/index"
include_patterns = ["docs/pdf.md", "tutorials/[0-9]*.py"]
if not PDF:
    include_patterns = [
        "docs/**.md",
        "tutorials/**",
        "benchmarks/README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
    ]
exclude_patterns = ["build", "site", "runs", "**/.*", "tutorials/*.ipynb"]
exclude_patterns += ["tutorials/05_your_own_op", "docs/cards.md"]
exclude_patterns += [] if PDF else ["docs/pdf.md"]

# -- Text

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
source_suffix = {".md": "myst-nb", ".py": "myst-nb"}


def programs_are_downloads(app, docname, source):
    """Links to programs that are no tutorials, and to notebooks: to Sphinx, `.py` and
    `.ipynb` mean a page."""

    def link(match):
        path = os.path.normpath(pathlib.Path(docname).parent / match[2])
        is_page = path.endswith(".py")
        is_page &= app.project.path2doc(path) in app.project.docnames
        return match[0] if is_page else f"{{download}}`{match[1]} <{match[2]}>`"

    source[0] = re.sub(r"\[([^][]+)\]\(([^():]+\.(?:py|ipynb))\)", link, source[0])


def cards_of_tutorials(app, docname, source):
    """On the site, a comment that other readers of Markdown do not show becomes cards.
    Their links hold in any folder of the first level."""
    cards = (ROOT / "docs/cards.md").read_text()
    source[0] = source[0].replace("<!-- cards -->\n", cards)


# -- Tutorials: the stored full runs. With the tag `quick` short runs are made instead,
# which show that the tutorials and the pages work; they are not published.

nb_custom_formats = {".py": ["stored_runs.read_page", {}]}
nb_execution_mode = "off"
if QUICK:
    nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
    nb_execution_mode = "cache"
    os.environ["HW3TF_TUTORIAL_ARGUMENTS"] = "--quick"
nb_execution_in_temp = True  # their folder `runs` stays out of the checkout
os.environ["HW3TF_TUTORIALS"] = str(
    ROOT / "tutorials"
)  # the fifth builds a folder there
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = -1
nb_output_stderr = "remove"
nb_ipywidgets_js = {}  # would come from a network


def state_of_the_code():
    """Names everything that tutorials depend on beside their own text, so that site and
    PDF share one short run of each, and no run of another version is shown."""
    files = [p for p in (ROOT / "hw3tf").rglob("*.py")]
    for folder in ("csrc", "tutorials/05_your_own_op"):
        files += [p for p in (ROOT / folder).rglob("*") if p.is_file()]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


nb_execution_cache_path = str(ROOT / "build/notebooks" / state_of_the_code())


def join_what_is_printed(app, doctree):
    """Joins the printed pieces of a cell into one block with the last state of every
    progress bar; myst-nb's `nb_merge_streams` would keep all states."""
    blocks = [
        x for x in doctree.findall(nodes.literal_block) if "stream" in x["classes"]
    ]
    for block in reversed(blocks):
        before = block.previous_sibling()
        if before in blocks:
            before[:] = [nodes.Text(before.astext() + block.astext())]
            block.parent.remove(block)
        else:
            states = (line.split("\r") for line in block.astext().split("\n"))
            text = "\n".join(line[-1].replace("\b", "") for line in states)
            block[:] = [nodes.Text(text)]
            block.rawsource = text


# -- Docstrings: Google style, with Markdown's backticks and links

default_role = "literal"
autodoc_typehints = "none"  # types are told in words
python_maximum_signature_line_length = 80
napoleon_custom_sections = [
    ("Call arguments", "params_style"),
    ("Reference", "References"),
]
napoleon_use_ivar = True
napoleon_use_rtype = False


def links_of_markdown(app, what, name, obj, options, lines):
    """Turns `[text](address)` into reStructuredText, over line ends."""
    text = "\n".join(lines)
    lines[:] = re.sub(r"\[([^][]+)\]\((http[^)]+)\)", r"`\1 <\2>`__", text).split("\n")


def signature_of_layers(app, what, name, obj, options, signature, returned):
    """That of `__init__`, which Keras hides behind `__new__(*args, **kwargs)`."""
    if what != "class" or signature != "(*args, **kwargs)":
        return None
    parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
    return str(inspect.Signature(parameters)), returned


# -- Site


def mathjax_file():
    """MathJax in one file, which draws formulas as SVG: a browser would not load fonts
    from a file system."""
    files = importlib.metadata.files("sphinx-mathjax-offline")
    return str(next(f for f in files if f.match("mathjax/tex-svg.js")).locate())


html_theme = "furo"
html_title = "hw3tf"
html_static_path = ["static", mathjax_file()]
html_css_files = ["hw3tf.css"]
templates_path = ["templates"]
html_additional_pages = {"index": "to_the_index.html"}
html_copy_source = False
html_show_search_summary = False  # would fetch pages, which a file system refuses
mathjax_path = "tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}  # it would load more

# -- PDF

latex_engine = "xelatex"
latex_documents = [
    ("docs/pdf", "hw3tf.tex", "Homework 3: answers and notebooks", author, "manual")
]
latex_show_urls = "footnote"
latex_use_xindy = False
latex_elements = {
    "papersize": "a4paper",
    "extraclassoptions": "oneside,openany",
    "sphinxsetup": "hmargin=25mm, vmargin=25mm",
    "fncychap": "",
    "figure_align": "H",
    # The answers come first; `nox -s pdf` typesets them.
    "extrapackages": r"\usepackage{pdfpages}",
    "maketitle": r"""
\phantomsection\addcontentsline{toc}{chapter}{Answers}
\includepdf[pages=-]{answers.pdf}
\sphinxmaketitle
""",
    # Chapters have the numbers of the tutorials; their sections have none, as they have
    # in the notebooks.
    "preamble": r"\setcounter{secnumdepth}{0}",
    "printindex": "",
    # DejaVu has the bars of progress bars, too.
    "fontpkg": r"""
\setmainfont{Latin Modern Roman}
\setsansfont{Latin Modern Sans}
\setmonofont[Scale=0.8]{DejaVu Sans Mono}
""",
    "fvset": r"\fvset{fontsize=\footnotesize}",
}


def keep_notebooks_in_build(app):
    """Executed notebooks and their pictures; myst-nb has a folder beside `site`."""
    folder = str(ROOT / "build/executed")
    app.env.mystnb_config = app.env.mystnb_config.copy(output_folder=folder)


def setup(app):
    app.connect("source-read", programs_are_downloads)
    app.connect("source-read", cards_of_tutorials)
    app.connect("doctree-read", join_what_is_printed)
    app.connect("autodoc-process-docstring", links_of_markdown)
    app.connect("autodoc-process-signature", signature_of_layers)
    app.connect("builder-inited", keep_notebooks_in_build, priority=900)
