"""The recorder's process: every event of the cluster into the run's log."""
