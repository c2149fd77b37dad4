"""Many simulations of one scenario: `anyserve sweep` and `anyserve plan`."""
