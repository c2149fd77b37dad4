"""`anyserve doctor`: small checks of this machine."""
