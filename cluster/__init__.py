"""Where it runs: Dask clusters and what every worker is set up with."""
