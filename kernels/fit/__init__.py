"""From a samples file to a profile: splits, forms, fits, residuals. NumPy and SciPy only."""
