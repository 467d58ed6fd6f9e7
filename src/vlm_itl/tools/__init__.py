"""What no stage runs: it makes the models that ship with the repository and the page of settings, and analyses the first study again."""
