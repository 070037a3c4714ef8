"""Damaged and hostile files for every reader: seeds, mutations of them, and a watch on what reading does."""
