"""The judge that is a person: `judge` decides from answers, `items` says what was shown, `answers` is the file. `vlm_itl.review` asks."""
