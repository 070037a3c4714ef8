"""Evaluation in parts: conditions, a fast scorer, and what is read off its answers.

`sharpmaml.evaluation` is the way in.
"""
