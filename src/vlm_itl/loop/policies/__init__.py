"""The policies, a file each. `vlm_itl.settings.registry` names them, and `vlm_itl.loop.policy` says what one is."""
