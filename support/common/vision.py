"""The one door to torchvision: ``from support.common.vision import datasets, transforms,
tv_models``.

torchvision describes its detection operators to PyTorch when it is imported, and fails with
"operator torchvision::nms does not exist" where its compiled part was built for another PyTorch.
This book uses none of those operators. When, and only when, the import fails for that reason, the
operators it names are declared and the import is tried again.
"""

import importlib
import re
import sys

import torch

_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_SCHEMAS = {"nms": f"nms{_BOXES}", "qnms": f"qnms{_BOXES}"}
_declared: list[torch.library.Library] = []  # a declaration lives as long as its library object


def _missing_operator(error: BaseException) -> str | None:
    found = re.search(r"operator torchvision::(\w+) does not exist", str(error))
    return found[1] if found else None


def import_torchvision() -> list[str]:
    """Import torchvision, declaring the operators whose absence alone makes the import fail.

    Returns:
        Names of the operators that had to be declared; empty on a sound installation.

    Raises:
        ImportError, RuntimeError: whatever torchvision's import raises for any other reason.
    """
    declared: list[str] = []
    while True:
        try:
            importlib.import_module("torchvision")
            return declared
        except RuntimeError as error:
            name = _missing_operator(error)
            if name not in _SCHEMAS or name in declared:
                raise
            # A failed import leaves half-initialised modules behind, which the next attempt would
            # take for whole ones.
            for module in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
                del sys.modules[module]
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(_SCHEMAS[name])
            _declared.append(library)
            declared.append(name)


DECLARED = import_torchvision()

from torchvision import datasets, transforms  # noqa: E402
from torchvision import models as tv_models  # noqa: E402

__all__ = ["DECLARED", "datasets", "import_torchvision", "transforms", "tv_models"]
