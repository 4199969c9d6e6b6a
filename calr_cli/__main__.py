"""``python -m calr_cli`` is the same program as ``calr``."""

from calr_cli.cli.app import main

if __name__ == "__main__":
    main()
