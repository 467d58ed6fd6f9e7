"""What DVC's stages share: how one is declared and run, and which code each of them uses."""
