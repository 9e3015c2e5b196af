"""Runs the ``trtcross`` command as ``python -m toolchain``, where its script is not on the path."""

from toolchain.cli.main import main

if __name__ == "__main__":
    main()
