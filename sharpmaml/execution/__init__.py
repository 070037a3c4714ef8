"""Executors: ways to compute a pass over a meta-batch, see `sharpmaml.plan.Executor`."""
