"""A small Sphinx extension, named in ``_config.yml``: the built pages ask nothing of the network.

MathJax comes from the package ``sphinx-mathjax-offline``, which is named like no module can be; of
its 24 MB only what our pages can load is copied. The launcher of live code (thebe), which Jupyter
Book always adds, is taken out: it points to a public server, and its script is declared twice on
    every page, which is an error.
"""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

# TeX in, HTML out: what `mathjax_path` names, what it loads, and folders of what formulas ask for.
PARTS = ("startup.js", "core.js", "input/tex.js", "output/chtml.js", "ui/lazy.js")
FOLDERS = ("input/tex", "output/chtml", "a11y")


def _copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        package = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent
        source, target = package / "static" / "mathjax", Path(app.outdir) / "_static" / "mathjax"
        for folder in FOLDERS:
            shutil.copytree(source / folder, target / folder, dirs_exist_ok=True)
        for part in PARTS:
            (target / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / part, target / part)


def _without_thebe(app: Sphinx) -> None:
    for listener in [one for found in app.events.listeners.values() for one in found]:
        name = getattr(listener.handler, "__name__", "")  # a partial function has none
        if name in ("init_thebe_core", "update_thebe_context"):
            app.disconnect(listener.id)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", _without_thebe)
    app.connect("build-finished", _copy_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
