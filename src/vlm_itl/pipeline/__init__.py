"""The graph of stages: how a stage is declared and run, and how DVCs run all of them side by side."""
