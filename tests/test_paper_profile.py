"""The paper profile runs from the command line: at tiny sizes here, since its own sizes want a GPU."""

import json
import shutil

import pytest

from support import claims, paths, records, runner

DIGITS = {"digits_data": "digits", "digits_model": "mlp", "digits_train": 400, "digits_test": 200, "digits_epochs": 8}
PICTURES = {"pictures_data": "digits", "pictures_models": ["mlp", "small_cnn"], "pictures_train": 400, "pictures_test": 200}
TRAINING = {"digits_tailor_epochs": 3, "pictures_epochs": 8, "pictures_tailor_epochs": 3, "augment": False, "collapse_epochs": 3}
ATTACKS = {"attack_images": 20, "pgd_steps": 5, "pgd_restarts": 1, "corner_images": 20, "corner_images_digits": 20, "theorem_images": 60}
EVOLUTION = {"de_images": 2, "de_population": 20, "de_generations": 3}
BOUNDARIES = {"data": "digits", "networks": ["mlp", "small_cnn"], "train": 400, "epochs": 4, "pairs": 12, "attack_steps": 5}
NEIGHBOURHOODS = {
    "attack_eps": 0.3,
    "centers": 2,
    "samples": 80,
    "curvature_radii": [0.1, 1.0],
    "curvature_centers": 3,
    "curvature_directions": 3,
}
GEOMETRY = {"delaunay_dimensions": [2, 3], "delaunay_points": 60, "grids": [4, 8], "census_points": 200, "orthant_dimensions": 40}
MIRRORED = {"curvature_directions": 3, "persistence_pairs": 3, "persistence_samples": 100}
TINY = {
    "01_softmax_kmeans": {"seeds": 1, **DIGITS, **PICTURES, **TRAINING, **ATTACKS, **EVOLUTION},
    "07_decision_boundaries": {"seeds": 1, **BOUNDARIES, **NEIGHBOURHOODS, **GEOMETRY, **MIRRORED},
}


@pytest.mark.parametrize("chapter", sorted(TINY))
def test_the_paper_profile_runs_at_tiny_sizes(chapter, tmp_path, monkeypatch):
    root = paths.root()
    for folder in ("book", "data/claims", "data/profiles"):
        (tmp_path / folder).mkdir(parents=True)
    wanted = [f"book/{chapter}.py", f"data/profiles/{chapter}.yml", "_toc.yml"]
    for file in (*map(root.joinpath, wanted), *(root / "data/claims").glob("*.yml")):
        shutil.copy(file, tmp_path / file.relative_to(root))
    monkeypatch.setenv("BOOK_ROOT", str(tmp_path))
    monkeypatch.setenv("BOOK_CACHE", str(tmp_path / "cache"))
    notebook = runner.execute(chapter, "paper", 0, "cpu", TINY[chapter])
    manifest = json.loads(notebook.with_suffix(".json").read_text())
    assert manifest["profile"] == "paper" and manifest["overrides"] == TINY[chapter]
    assert len(manifest["claims"]) == len(claims.of_chapter(chapter)) >= 10, "every claim of the chapter is stated at this profile too"


def test_every_chapter_is_tried():
    assert set(TINY) == set(records.chapters())
