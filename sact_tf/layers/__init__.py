"""Building blocks: convolution, batch norm, residual units, halting scores."""
