"""The metrics of a run, by name: apart from what measures them, for which a help text must not wait."""

from __future__ import annotations

__all__ = ["METRICS"]

METRICS = {
    "lightmill_run_info": "always 1; in labels catalogue, release, recipe, bundle, code",
    "lightmill_run_state": "1 for the state that the run is in, 0 for the others, by state",
    "lightmill_run_units": "units by state: done, failed, quarantined, running, waiting",
    "lightmill_run_light_curves": "light curves read, by earlier drivers too",
    "lightmill_run_light_curves_per_second": "light curves read per second since the driver started",
    "lightmill_run_input_bytes": "bytes of input by state: done, total",
    "lightmill_run_seconds": "seconds since the driver started",
    "lightmill_run_left_seconds": "seconds until the end, estimated; absent where not known",
    "lightmill_run_failed_attempts": "tries that failed since the driver started, by class",
    "lightmill_run_workers": "workers",
    "lightmill_run_peak_rss_bytes": "highest resident memory of a worker",
    "lightmill_run_slowest_unit_seconds": "wall time of the slowest unit",
    "lightmill_run_updated_timestamp_seconds": "Unix time at which the driver spoke last",
}
"""What each tells. All are gauges: where a driver goes on for another, seconds, rate and tries begin anew."""
