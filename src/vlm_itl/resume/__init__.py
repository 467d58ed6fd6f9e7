"""What lets a killed run go on: checkpoints and finished parts on disk, under a KEY of all that they follow from."""
