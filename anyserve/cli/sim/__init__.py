"""`anyserve sim`: a scenario in virtual time, with the report and the exit code of a live run."""
