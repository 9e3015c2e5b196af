"""``python -m toolchain`` is the ``trtcross`` command, where its script is not at hand."""

from toolchain.cli.main import main

if __name__ == "__main__":
    main()
