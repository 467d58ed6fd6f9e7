"""The data set that comes out of an experiment: a run's labels with their pictures, in the form that other programs read."""
