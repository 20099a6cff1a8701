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
from sphinx.errors import ExtensionError

BUNDLE = "tex-chtml.js"  # TeX in, HTML out; what `mathjax_path` names


def mathjax() -> Path:
    """The folder of the installed MathJax.

    Raises:
        ExtensionError: the package is not installed.
    """
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise ExtensionError(
            "sphinx-mathjax-offline is not installed: it belongs to the extra named book"
        )
    return Path(spec.origin).parent / "static" / "mathjax"


def _other_bundles(folder: str, names: list[str]) -> list[str]:
    return [
        name
        for name in names
        if Path(folder) == mathjax() and name.endswith(".js") and name != BUNDLE
    ]


def _copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        shutil.copytree(
            mathjax(),
            Path(app.outdir) / "_static" / "mathjax",
            ignore=_other_bundles,
            dirs_exist_ok=True,
        )


def _without_thebe(app: Sphinx) -> None:
    for listeners in list(app.events.listeners.values()):
        for listener in list(listeners):
            if listener.handler.__module__ == "sphinx_thebe" and listener.handler.__name__ in (
                "init_thebe_core",
                "update_thebe_context",
            ):
                app.disconnect(listener.id)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", _without_thebe)
    app.connect("build-finished", _copy_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
