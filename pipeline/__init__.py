"""The work: from light curves to rows, from a release to a run."""
