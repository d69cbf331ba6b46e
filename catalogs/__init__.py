"""Data at rest: reading releases, writing, publishing and querying catalogues."""
