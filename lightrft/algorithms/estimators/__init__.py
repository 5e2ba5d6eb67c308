"""One file per value of `--advantage_estimator`; each declares one `ESTIMATOR`."""
