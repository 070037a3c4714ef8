"""Searches for eigenvectors of an operator that is known by its products only."""
