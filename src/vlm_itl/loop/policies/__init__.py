"""The policies, a file each. `vlm_itl.registry` names them, and `vlm_itl.loop.policy` says what one is."""
