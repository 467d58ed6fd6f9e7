"""Questions with known answers, made from held-out initial labels, and what a judge's answers to them say of it."""
