"""What DVC runs: how a stage is declared and run."""
