"""Whether what is computed comes to the same bits; see `determinism.lab`."""
