"""What can be proved about a classifier: Lipschitz bounds, certified radii, exact least budgets."""
