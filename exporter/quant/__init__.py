"""Block quantisation and code layouts, in NumPy alone."""
