"""Running whole experiments: all stages side by side, and sweeps over seeds."""
