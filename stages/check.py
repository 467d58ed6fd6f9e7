"""Check params.yaml before a command that names from it stand in: DVC does not quote them, and a shell would run what it finds there.

Not a stage. dvc.yaml has it as the first command of each stage with such names; DVC runs each command by itself, in order.
"""

from __future__ import annotations

from vlm_itl.settings import main

if __name__ == "__main__":
    main()
