"""What is certain about a network, as opposed to what a search did not find.

- :mod:`~support.certificates.lipschitz`: upper bounds on a network's Lipschitz constant, and a
  lower one beside them (chapters 1, 4 and 8);
- :mod:`~support.certificates.certified_radius`: the radius that such a constant certifies of a
  nearest-cluster classifier, and the accuracy beyond it (chapters 4 and 8);
- :mod:`~support.certificates.bounds`: an enclosure of all scores of an eps-ball, by interval
  arithmetic (chapter 3);
- :mod:`~support.certificates.exact_search`: the least eps-ball that holds a wanted image, by mixed
  integer programming, for small networks (chapter 3).
"""

from support.certificates.bounds import centred_score_bounds
from support.certificates.certified_radius import certified_accuracy, robustness_radius
from support.certificates.exact_search import LeastBudget, least_budget
from support.certificates.lipschitz import (
    convolution_bound,
    lipschitz_lower_bound,
    lipschitz_upper_bound,
)

__all__ = [
    "LeastBudget", "centred_score_bounds", "certified_accuracy", "convolution_bound",
    "least_budget", "lipschitz_lower_bound", "lipschitz_upper_bound", "robustness_radius",
]  # fmt: skip
