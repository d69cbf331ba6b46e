"""The bundles that ship with Lightmill, one folder each."""
