"""The budgets of the design, measured against their peers in one run and printed as ratios."""
