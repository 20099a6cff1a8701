"""Runs of the tiny book that no kernel made: a notebook and a manifest as a run leaves them, current unless a test says otherwise."""

from pathlib import Path
from typing import Any

import nbformat
import tiny_book

from support.book import claims, manifests, profiles
from support.common import identity

PNG = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 640x480>"}


def manifest(part: str = "evidence", profile: str = "quick", chapter: str = tiny_book.CHAPTER, **changes: Any) -> manifests.Manifest:
    """The manifest of a part that was run just now; a lesson read the evidence that there is."""
    found = profiles.load(chapter, profile)
    facts = {
        "chapter": chapter, "part": part, "profile": profile, "parameters": found.model_dump(mode="json"), "overrides": {}, "seed": 0,
        "seeds": list(range(found.seeds)), "device": "cpu", "device_name": "A processor", "threads": 1, "versions": identity.versions(),
        "platform": "Linux", "commit": None, "dirty": None, "data": {}, "code": manifests.code_of(chapter, part), "units": 0,
        "units_from_cache": 0, "computing_seconds": 1.0, "wall_seconds": 120.0, "peak_memory_mb": 512, "peak_gpu_memory_mb": None,
        "finished": "2026-01-02T03:04:05+00:00", "outputs": "0" * 16,
    }  # fmt: skip
    if part == "evidence":
        number = {"measured": {"error": [0.0], "accuracy": [0.9]}, "modern": {}, "cell": 1}
        facts |= {"claims": {claim.id: number for claim in claims.of_chapter(chapter)}, "kept": {"steps": 5}}
    elif part == "lesson":
        evidence = manifests.evidence_run(chapter, profile, facts["parameters"], 0)
        facts["evidence"] = manifests.manifest_of(evidence).content()
    return manifests.Manifest(**(facts | changes))


def leave(notebook: Path, found: manifests.Manifest, *cells: nbformat.NotebookNode) -> Path:
    """Put a run where it belongs, such as ``manifests.local_run(...)``."""
    for file, text in (
        (notebook, nbformat.writes(nbformat.v4.new_notebook(cells=list(cells)))),
        (manifests.manifest_path(notebook), found.model_dump_json()),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return notebook


def shows(name: str, *outputs: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An executed cell of this name."""
    return nbformat.v4.new_code_cell("1", metadata={"name": name}, outputs=list(outputs))
