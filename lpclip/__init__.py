"""The mathematics of the linear probe, without PyTorch."""
