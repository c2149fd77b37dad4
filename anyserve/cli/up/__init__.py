"""`anyserve up`: from a scenario file to a running cluster, its report and its exit code."""
