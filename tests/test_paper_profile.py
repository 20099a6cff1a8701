"""The paper profile runs from the command line: at tiny sizes here, since its own sizes want a GPU."""

import shutil

import pytest

from support.book import claims, execute, manifests, profiles
from support.common import paths

DIGITS = {"digits_data": "digits", "digits_model": "mlp", "digits_train": 400, "digits_test": 200, "digits_epochs": 8}
PICTURES = {"pictures_data": "digits", "pictures_models": ["mlp", "small_cnn"], "pictures_train": 400, "pictures_test": 200}
TRAINING = {"digits_tailor_epochs": 3, "pictures_epochs": 8, "pictures_tailor_epochs": 3, "augment": False, "collapse_epochs": 3}
ATTACKS = {"attack_images": 20, "pgd_steps": 5, "pgd_restarts": 1, "corner_images": 20, "corner_images_digits": 20, "theorem_images": 60}
EVOLUTION = {"de_images": 2, "de_population": 20, "de_generations": 3}
SOFTRMAX = {
    "draws": 20, "linear_steps": 100, "moons_steps": 50, "digits_data": "digits", "digits_model": "mlp", "digits_train": 400,
    "digits_test": 200, "digits_epochs": 8, "pair_epochs": 8, "initial_epochs": 2, "pictures_data": "digits", "pictures_model": "small_cnn",
    "pictures_width": 4, "pictures_train": 400, "pictures_test": 100, "pictures_epochs": 3, "pictures_batch": 64, "hundred_data": "digits",
    "hundred_model": "mlp", "hundred_train": 400, "hundred_test": 100, "hundred_epochs": 5, "hundred_batch": 64, "attack_images": 20,
    "pgd_steps": 5, "pgd_restarts": 1, "curve_images": 10, "curve_steps": [1, 10], "table2_images": 20, "substitute_seed": 20,
    "substitute_rounds": 1, "protocol_images": 10, "library_images": 0, "hard_label_images": 0, "protocol_eps": [0.2], "protocol_seeds": 1,
}  # fmt: skip
DIRECTIONS = {
    "seeds": 1, "images_data": "digits", "train": 1000, "test": 200, "epochs": 12, "networks": ["mlp"], "widths": [2, 9, 12],
    "width_train": 400, "layers": 5, "attack_images": 20, "pgd_steps": 5, "match_eps": [0.03, 0.2], "match_sources": 5, "match_steps": 5,
    "exact_hidden": [8], "exact_pairs": 1, "parallel_eps": [0.05, 0.1], "protocol_seeds": 1, "protocol_budget": "quick",
    "pretrained": ["none"],
}  # fmt: skip
PATH = {"data": "digits", "outside": "shuffled", "gauss_points": 60, "gauss_steps": 6, "train": 60, "test": 20, "hidden": 8, "steps": 8}
LEAVING_OUT = {"loo_train": 40, "loo_points": 5, "loo_test": 5, "loo_steps": 6, "pgd_steps": 3, "kernel_steps": 2, "gp_train": 40}
LINES = {"line_train": 200, "line_epochs": 2, "line_points": 7, "line_images": 100, "protocol_images": 10, "hull_train": 6, "growth": 2}
PERSISTENCE = {"data_set": "digits", "train": 400, "test": 200, "epochs": 25, "conv_train": 400, "conv_epochs": 8, "conv_kernel": 2}
NOISE = {"images": 60, "conv_images": 10, "samples": 200, "conv_samples": 100, "frequency_samples": 50, "frequency_sigmas": 10}
NETWORKS = {"networks": ["FC10-4", "FC10-0", "FC100-100-10", "C-2"], "imagenet_networks": ["none"], "protocol_budget": "quick"}
REST = {"eps_curve": [0.3, 0.5], "igsm_eps": 0.3, "audit_images": 20, "adaptive_draws": 2}
BOUNDARIES = {"data": "digits", "convolutional": "small_cnn", "train": 400, "epochs": 4, "pairs": 12, "attack_steps": 5}
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
CLUSTR_DATA = {"data": "digits", "model": "mlp", "train": 400, "test": 200, "attack_images": 30}
CLUSTR_PICTURES = {
    "pictures": ["digits"],
    "picture_model": "mlp",
    "start_model": "mlp",
    "start_epochs": 8,
    "picture_seeds": 1,
    "augment": False,
}
CLUSTR_TRAINING = {"epochs": 8, "magnet_epochs": 3, "toy_points": 100, "toy_epochs": 5, "toy_seeds": 1}
CLUSTR_ATTACKS = {"loop_steps": 5, "loop_restarts": 2, "long_steps": 6, "nearest_grid": [1, 4], "search_images": 10}
CLUSTR = {**CLUSTR_DATA, **CLUSTR_PICTURES, **CLUSTR_TRAINING, **CLUSTR_ATTACKS, "protocol_images": 12, "protocol_heavy": 0}
EVERY = {
    "seeds": 1, "networks": ["nominal", "Gauss", "ClusTR", "adversarial"], "data": "digits", "outside": "shuffled", "backbone": "mlp",
    "train": 400, "test": 200, "warm": 6, "tuned": 3, "pgd_steps": 2, "augment": False, "eps": 0.1, "protocol_images": 12,
    "protocol_heavy": 0, "protocol_steps": 5, "images": 30, "corner_images": 10, "noise_images": 6, "noise_samples": 60, "pairs": 10,
    "bend_places": 3, "bend_directions": 3, "bend_reach": 0.3, "kernel_images": 10,
}  # fmt: skip
RUNS = {"seeds": 2}  # where another data set has fewer runs
TINY = {
    "01_softmax_kmeans": {**RUNS, "pictures_seeds": 1, **DIGITS, **PICTURES, **TRAINING, **ATTACKS, **EVOLUTION},
    "02_softrmax": {**RUNS, "pictures_seeds": 1, **SOFTRMAX},
    "03_adversarial_directions": DIRECTIONS,
    "04_clustr": {**RUNS, **CLUSTR},
    "05_persistence": {"seeds": 1, "conv_seeds": 1, **PERSISTENCE, **NOISE, **NETWORKS, **REST},
    "06_path_kernel": {"seeds": 1, **PATH, **LEAVING_OUT, **LINES, "dropout_pairs": 12, "dropout_masks": 2},
    "07_decision_boundaries": {"seeds": 1, **BOUNDARIES, **NEIGHBOURHOODS, **GEOMETRY, **MIRRORED},
    "08_every_probe": EVERY,
}


@pytest.mark.parametrize("chapter", sorted(TINY))
def test_tiny_sizes_are_sizes_of_the_paper_profile(chapter):
    found = profiles.load(chapter, "paper", TINY[chapter])
    assert found != profiles.load(chapter, "paper")


@pytest.mark.parametrize("chapter", manifests.chapters())
def test_the_paper_profile_runs_at_tiny_sizes(chapter, tmp_path, monkeypatch):
    root = paths.root()
    for file in ("_toc.yml", "data/calibration.json", f"data/profiles/{chapter}.yml"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / file, tmp_path / file)
    shutil.copytree(root / "data/claims", tmp_path / "data/claims")
    shutil.copytree(root / "book" / chapter, tmp_path / "book" / chapter, ignore=shutil.ignore_patterns("*.ipynb"))
    monkeypatch.setenv("BOOK_ROOT", str(tmp_path))
    evidence, *_ = map(manifests.manifest_of, execute.execute(chapter, "paper", 0, "cpu", TINY[chapter]))
    assert (evidence.part, evidence.profile, evidence.parameters) == (
        "evidence", "paper", profiles.load(chapter, "paper", TINY[chapter]).model_dump(mode="json"),
    )  # fmt: skip
    assert set(evidence.claims) == {claim.id for claim in claims.of_chapter(chapter)} != set(), "every claim is stated at this profile too"


def test_every_chapter_is_tried():
    assert set(manifests.chapters()) <= set(TINY) == set(profiles.chapters())
