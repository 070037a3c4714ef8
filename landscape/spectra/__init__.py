"""What is computed of a symmetric operator: eigenpairs, trace, density, and where they lead."""
