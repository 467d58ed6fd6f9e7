"""The judge that looks at pictures: `settings` says what may stand in params.yaml, `judging` asks."""
