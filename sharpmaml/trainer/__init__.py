"""Parts of the training loop: what is learned, from which tasks, by which ranks, and what is written."""
