"""The commit protocol: freeze, plan, decide by one compare-and-set, roll forward, publish."""
